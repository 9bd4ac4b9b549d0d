import pytest

from scalpel_graph.caches import Cache, Sweeper, data_caches, last_cache_bytes


def write(folder, *caches):
    for number, (level, kind, size, sharers) in enumerate(caches):
        index = folder / f"index{number}"
        index.mkdir()
        facts = {"level": level, "type": kind, "size": size, "shared_cpu_list": sharers}
        for name, value in facts.items():
            if value is not None:
                (index / name).write_text(f"{value}\n")


def test_data_caches_are_read_smallest_first(tmp_path):
    write(
        tmp_path,
        (3, "Unified", "32M", "0-7,16-23"),
        (1, "Data", "48K", "0,16"),
        (1, "Instruction", "32K", "0,16"),
        (2, "Unified", "1024K", "0"),
    )
    assert data_caches(tmp_path) == [Cache(1, 48 << 10, 2), Cache(2, 1 << 20, 1), Cache(3, 32 << 20, 16)]


def test_a_system_that_says_nothing_or_not_all_has_no_caches(tmp_path):
    write(tmp_path, (1, "Data", "48K", None))
    assert data_caches(tmp_path) == []
    assert data_caches(tmp_path / "missing") == []


@pytest.mark.parametrize(
    ("sharers", "threads", "processors", "share"),
    [(1, 1, 2, 1000), (1, 2, 2, 1000), (2, 2, 2, 500), (2, 2, 4, 1000), (2, 4, 4, 500), (8, 1, 4, 1000)],
)
def test_threads_share_a_cache_or_have_their_own(sharers, threads, processors, share):
    assert Cache(1, 1000, sharers).share(threads, processors) == share


def test_sweeping_goes_over_more_than_the_caches_hold():
    sweeper = Sweeper()
    sweeper.sweep()
    assert sweeper.nbytes >= 2 * last_cache_bytes() - 4 > 0
