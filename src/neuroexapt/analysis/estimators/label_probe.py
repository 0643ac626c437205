"""Information about the label that a linear probe finds in a layer."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from neuroexapt.analysis.estimators.base import Estimator, Value
from neuroexapt.analysis.estimators.probing import probe_bytes, probe_of
from neuroexapt.analysis.watching import LayerSample


class LabelInformation(Estimator):
    """The bound I(Y; H) >= H(Y) - CE of a linear probe, on rows that it was not fitted to.

    The true value is the information usable by linear probes (Xu et al. 2020, A theory of usable information under
    computational constraints, definition 3): that of a probe fitted to unlimited rows. A probe of few rows gives less,
    so the value is a lower bound of that too. The interval begins where the held-out value may be by chance, and ends
    as far above the value that is corrected for few rows (``LabelProbe.halfway``) as that is above the held-out one,
    and chance added.
    """

    name = "label_probe"
    views = frozenset({"pooled", "targets"})
    values = MappingProxyType(
        {
            "label_information": "what a linear probe of the layer tells about the label, in nats, in [0, H(Y)]; a "
            "lower bound, 0 where it tells nothing",
            "label_information_fraction": "the same as a fraction of H(Y), in [0, 1]",
        }
    )

    def workspace_bytes(self, sample: LayerSample) -> int:
        """That of the probe, and its rows in float64."""
        assert sample.pooled is not None
        assert sample.targets is not None
        count, columns = sample.pooled.shape
        return probe_bytes(count, columns, len(set(sample.targets.tolist())))

    def estimate(self, sample: LayerSample) -> Mapping[str, Value]:
        """See ``values``."""
        probe = probe_of(sample)
        if probe is None:
            return {}
        found, whole = probe.information(), probe.entropy
        return {
            "label_information": found,
            "label_information_fraction": Value(
                found.value / whole, found.spread / whole, found.low / whole, min(found.high / whole, 1.0)
            ),
        }
