"""The way a model flows: file, graph, passes in the target's order, check. The only module that knows the passes."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onnx import ModelProto

from scalpel_graph import inputs, io, stats
from scalpel_graph.errors import CheckError, GraphError, InputError
from scalpel_graph.graph import ModelGraph
from scalpel_graph.library import custom_op_library
from scalpel_graph.passes import pipelines
from scalpel_graph.passes.base import PassContext
from scalpel_graph.passes.manager import PassManager, PassRecord
from scalpel_graph.report import BeforeAfter, PassRun, Report, SkippedNode
from scalpel_graph.target import Target, load_target
from scalpel_graph.verify import ATOL, RTOL, RUNS, Unverifiable, Verification, verify
from scalpel_graph.version import __version__
