"""``python -m scalpel_graph`` is ``scalpel-opt``."""

import sys

from scalpel_graph.cli.entry import opt

if __name__ == "__main__":
    sys.exit(opt())
