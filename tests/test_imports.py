"""How the modules import each other."""

from __future__ import annotations

from graphlib import TopologicalSorter

import grimp


def test_no_import_goes_in_a_circle():
    graph = grimp.build_graph("decodecli", exclude_type_checking_imports=True, cache_dir=None)
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    assert len(imports) > 100
    TopologicalSorter(imports).prepare()  # raises CycleError, which names the circle
