"""``python -m scalpel_graph`` is ``scalpel-opt``."""

import sys

from scalpel_graph.cli.opt import main

sys.exit(main())
