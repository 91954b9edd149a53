"""The browser of these tests; where there is none they skip, or fail if it is required."""

import os
from collections.abc import Iterator

import pytest
from browser.chromium import Chromium, missing


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    lacking = missing()
    if lacking:
        if "browser" in os.environ.get("CIFAR_LAB_REQUIRE", ""):
            pytest.fail(lacking)
        pytest.skip(lacking)
    with Chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser
