"""`python -m perdure.testing`."""

from perdure.testing.campaign import main

raise SystemExit(main())
