"""Screenshots of the pages for the docs: `python -m tests.browser.screenshots`.

Rules: they are taken from a real engine in a real browser and opened by a person before they are
kept; pictures have a palette, so that all of them together stay below a megabyte.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import struct
import sys
import tempfile
import zlib
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser import demo
from tests.browser.conftest import launched
from tests.http.support import server

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "pages"
DESKTOP, PHONE = (1280, 800), (390, 844)
COLOURS = 256
APART = 12
"""Colours that are nearer than this (the square of their distance) are one."""

# Of each pixel the number of its colour, the most frequent colours first.
INDEXED = """
async ([picture, most, apart]) => {
  const image = await createImageBitmap(await (await fetch(picture)).blob());
  const canvas = new OffscreenCanvas(image.width, image.height).getContext("2d");
  canvas.drawImage(image, 0, 0);
  const data = new Uint32Array(canvas.getImageData(0, 0, image.width, image.height).data.buffer);
  const counts = new Map();
  for (const pixel of data) counts.set(pixel, (counts.get(pixel) || 0) + 1);
  const parts = (one) => [one & 255, (one >> 8) & 255, (one >> 16) & 255];
  const colours = [];
  const known = new Map();
  for (const [pixel] of [...counts].sort((a, b) => b[1] - a[1])) {
    const [r, g, b] = parts(pixel);
    let best = 0, least = Infinity;
    colours.forEach(([x, y, z], at) => {
      const far = (x - r) ** 2 + (y - g) ** 2 + (z - b) ** 2;
      if (far < least) [best, least] = [at, far];
    });
    if (least > apart && colours.length < most) best = colours.push([r, g, b]) - 1;
    known.set(pixel, best);
  }
  const numbers = Uint8Array.from(data, (pixel) => known.get(pixel));
  let text = "";
  for (let at = 0; at < numbers.length; at += 32768) {
    text += String.fromCharCode(...numbers.subarray(at, at + 32768));
  }
  return [image.width, colours, btoa(text)];
}
"""


class Shot(NamedTuple):
    """A picture: its file's name, what is open, how wide, and which theme."""

    name: str
    path: str
    size: tuple[int, int] = DESKTOP
    dark: bool = False


SHOTS = (
    Shot("runs", "/"),
    Shot("runs-dark", "/?status=failed&status=retrying&status=blocked", dark=True),
    Shot("runs-phone", "/", PHONE),
    Shot("run", "/runs/report-litestream"),
    Shot("run-dark", "/runs/refund-5", dark=True),
    Shot("travel", "/runs/report-litestream/travel?at=20"),
    Shot("inbox", "/inbox"),
    Shot("start", "/start/research"),
    Shot("queue", "/queues/model"),
    Shot("schedule", "/schedules/digest"),
    Shot("system", "/system?check=all", dark=True),
    Shot("sql", "/sql?text=SELECT+step%2C+count%28%2A%29+AS+steps%2C+max%28took_ms%29+AS+slowest_ms"
                "%0AFROM+perdure_steps%0AGROUP+BY+step%0AORDER+BY+slowest_ms+DESC"),
)  # fmt: skip


def main(names: list[str]) -> None:
    """Take the pictures of these names, or all."""
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),  # pages name the store as it was given
        server(Path(folder)) as serve,
    ):
        asyncio.run(demo.before("agents.db"))
        served = serve(store="agents.db", **demo.OPTIONS)
        served.do(demo.fill)
        with sync_playwright() as playwright:
            browser = launched(playwright)
            for shot in SHOTS:
                if not names or shot.name in names:
                    _take(browser, served.url, shot)
            browser.close()


def _take(browser: Browser, url: str, shot: Shot) -> None:
    width, height = shot.size
    page = browser.new_page(
        viewport={"width": width, "height": height},
        color_scheme="dark" if shot.dark else "light",
    )
    page.goto(url + shot.path)
    expect(page.locator("#live-state")).to_be_visible()
    png = _with_palette(browser.new_page(), page.screenshot())
    (FOLDER / f"{shot.name}.png").write_bytes(png)
    page.close()


def _with_palette(page: Page, png: bytes) -> bytes:
    """A picture with 256 colours."""
    picture = "data:image/png;base64," + base64.b64encode(png).decode()
    width, palette, text = page.evaluate(INDEXED, [picture, COLOURS, APART])
    page.close()
    pixels = base64.b64decode(text)
    lines = b"".join(
        b"\0" + pixels[at : at + width] for at in range(0, len(pixels), width)
    )  # each line begins with its filter: none
    header = struct.pack(">IIBBBBB", width, len(pixels) // width, 8, 3, 0, 0, 0)
    parts = [
        (b"IHDR", header),
        (b"PLTE", bytes(part for colour in palette for part in colour)),
        (b"IDAT", zlib.compress(lines, 9)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


if __name__ == "__main__":
    main(sys.argv[1:])
