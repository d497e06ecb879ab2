"""The item table on disk and the unknown item."""

import numpy as np

from components.history.items import ARRAYS, ItemTable
from tests.components.history.logs import ITEM_IDS, item_table


def test_a_saved_table_is_the_same_from_a_folder_or_from_single_files(tmp_path):
    table = item_table()
    table.save(tmp_path)
    for source in (tmp_path, {p.name: p for p in tmp_path.iterdir()}):
        loaded = ItemTable.load(source)
        for name in ARRAYS:
            np.testing.assert_array_equal(getattr(loaded, name), getattr(table, name))
        assert loaded.labels.equals(table.labels)
        assert isinstance(loaded.vectors, np.memmap)


def test_rows_of_ids_are_their_places_and_0_for_what_is_unknown():
    table = item_table()
    assert table.rows(ITEM_IDS[1:]).tolist() == [1, 2, 3, 4, 5]
    assert table.rows(["egg", "never", "", "apple"]).tolist() == [5, 0, 0, 1]
    assert table.rows([]).tolist() == []
    assert table.rows(["egg"]).dtype == np.int32
