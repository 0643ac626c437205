"""The survey behind ``coverage.py``: what models there are, and what is done to each of them."""
