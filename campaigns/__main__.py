"""`python -m campaigns`."""

from campaigns.main import main

raise SystemExit(main())
