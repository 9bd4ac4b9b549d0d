import subprocess
import sys


def test_without_torch_the_import_says_what_to_install():
    code = "import sys; sys.modules['torch'] = None\nimport scalpel_graph.torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: scalpel_graph.torch needs PyTorch: pip install 'scalpel-graph[torch]'"
    )
    assert "ModuleNotFoundError" not in done.stderr


def test_the_rest_of_the_package_does_without_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import scalpel_graph as sg; sg.optimize, sg.prune, sg.custom_op_library"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
