"""Reads of a store for pages, tools and observers, beside any engine."""

from perdure.reader.store_reader import StoreReader

__all__ = ["StoreReader"]
