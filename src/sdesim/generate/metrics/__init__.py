"""How far samples are from the data: distances with their noise floors, tests, and what pictures look like.

Every distance between finite sets is larger than 0 where nothing is wrong, and most depend on the number of samples:
read them beside :func:`floor`, the same distance between two sets of data.
"""

from ..classifier import ImageClassifier as ImageClassifier
from ..classifier import image_classifier as image_classifier
from .neighbours import Coverage as Coverage
from .neighbours import Neighbours as Neighbours
from .neighbours import coverage as coverage
from .neighbours import nearest_neighbour_rmse as nearest_neighbour_rmse
from .permutation import Floor as Floor
from .permutation import PermutationTest as PermutationTest
from .permutation import floor as floor
from .permutation import permutation_test as permutation_test
from .pictures import class_shares as class_shares
from .pictures import confidence as confidence
from .pictures import frechet_distance as frechet_distance
from .pictures import inception_score as inception_score
from .pictures import prediction_entropy as prediction_entropy
from .pictures import total_variation as total_variation
from .report import ImageQuality as ImageQuality
from .report import ImageReport as ImageReport
from .report import image_report as image_report
from .two_sample import energy_distance as energy_distance
from .two_sample import mmd as mmd
from .two_sample import sliced_wasserstein as sliced_wasserstein
