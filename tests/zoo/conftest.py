"""The model libraries come with the development extra; without them these tests are skipped and say so."""

import pytest
from survey.third_party import prepare_third_party

prepare_third_party()
for _library in ("torchvision", "timm", "transformers"):
    pytest.importorskip(_library, reason=f"{_library} is not installed; `pip install -e '.[zoo]'` brings it")
