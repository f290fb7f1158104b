"""What a run keeps of its paths: saved states, histograms, moments, …; gathered inside the time loop.

A reduction sees each tile at the recorded times and keeps a few numbers, so that 10⁸ paths need no memory. Counts are
integers, and sums are taken over the paths by one fixed binary tree on the absolute path index, so that a result has
the same bits for any blocks, any workers, and for two halves of an ensemble that were run apart and added.

A reduction has

* ``check(d)``, which raises where it does not fit a state of d components, and perhaps ``check_times(t)``, which raises
  where it does not fit the recorded times;
* ``start(block, d, n_times)``, which returns a part for one block of paths;
* ``result(parts, t, state_shape)``, which puts the parts together; results of disjoint paths add with ``+``.

A part has ``recorder(dtype)``, the compiled function that the engine hands its tiles, and perhaps ``close()``, called
when its block is done, which makes it small: a run may have thousands of them.

For runs with a checkpoint a part that is closed also has ``arrays()``, the numbers that it keeps, by names (float32,
float64, int64 or uint8, of at least one axis), and its reduction ``restored(arrays, block, d, n_times)``, which makes
the part from them again.
"""

from .autocorrelation import Autocorrelation as Autocorrelation
from .autocorrelation import AutocorrelationResult as AutocorrelationResult
from .first_passage import FirstPassage as FirstPassage
from .histogram import Histogram as Histogram
from .histogram import HistogramResult as HistogramResult
from .moments import Moments as Moments
from .moments import MomentsResult as MomentsResult
from .observable import Observable as Observable
from .observable import ObservableResult as ObservableResult
from .occupation import Occupation as Occupation
from .occupation import OccupationResult as OccupationResult
from .quantiles import Quantiles as Quantiles
from .quantiles import QuantilesResult as QuantilesResult
from .recorder import Recorder as Recorder
from .recorder import save_recorder as save_recorder
