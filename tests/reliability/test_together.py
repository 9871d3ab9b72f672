"""Two processes at the very beginning of one library, where nothing is decided yet."""

import threading
import time

from searchlib.catalog import Catalog

MODEL = {"identity": "a" * 64, "name": "test", "dimension": 4}


def test_two_that_choose_the_model_at_once_choose_one(library_folder):
    first = Catalog(library_folder, create=True)
    second = Catalog(library_folder, create=True)
    chosen = []
    waiting = threading.Thread(target=lambda: chosen.append(second.use_model(**MODEL)))
    with first.database.writing() as connection:
        waiting.start()
        # By then it has most likely seen that there is no model, and waits for its turn to write.
        time.sleep(0.3)
        connection.exec_driver_sql(
            "INSERT INTO model (identity, name, dimension, in_use, added_at) "
            f"VALUES ('{MODEL['identity']}', 'test', 4, 1, 0)"
        )
    waiting.join()
    assert chosen == [first.use_model(**MODEL)]
    first.close()
    second.close()


def test_many_that_make_a_library_at_once_make_one(library_folder):
    start = threading.Barrier(6)
    catalogs = []

    def make():
        start.wait()
        catalogs.append(Catalog(library_folder, create=True))

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(catalogs) == 6
    models = {catalog.use_model(**MODEL) for catalog in catalogs}
    assert len(models) == 1
    for catalog in catalogs:
        catalog.close()
