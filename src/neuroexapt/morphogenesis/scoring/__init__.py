"""Growth scores of candidate edits, all read at once off a few joint twins, for a stated share of the FLOPs."""

from neuroexapt.morphogenesis.scoring.candidates import Scores, score_all
from neuroexapt.morphogenesis.scoring.effort import Effort

__all__ = ["Effort", "Scores", "score_all"]
