"""ToMe on MAE's classifiers beside facebookresearch/ToMe, whose patch of them has no proportional attention."""

from reference_impls.parity.tome import build, outputs
from reference_impls.reducers.tome import METHOD
from tokenmark.contracts import Parity

PARITY = Parity(build=build, outputs=outputs, layout=METHOD.layout)
