import pytest
from store_view_cases import FEW, write_store_to_show

from pipeline.report.shown_views import ShownView
from pipeline.views.types import ViewKey


@pytest.fixture(scope="package")
def view(tmp_path_factory: pytest.TempPathFactory) -> ShownView:
    """A view of two objects."""
    store = write_store_to_show(tmp_path_factory.mktemp("store"), (8, 16, 32))
    return ShownView(store, ViewKey(FEW, 0))
