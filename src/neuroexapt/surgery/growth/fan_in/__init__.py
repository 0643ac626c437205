"""New units from gradients: which weights they begin with, measured on the objective."""

from neuroexapt.surgery.growth.fan_in.gradmax import gradmax
from neuroexapt.surgery.growth.fan_in.informed import informed

__all__ = ["gradmax", "informed"]
