"""Write a stochastic process once, as a formula, and look at it from every side.

import sdesim as sde

process = sde.OrnsteinUhlenbeck(theta=1.0, mu=0.0, sigma=0.7)
paths = sde.simulate(process, 2.0, (0.0, 1.0), n_steps=100, n_paths=1_000_000)
grid = sde.Grid(-3.0, 4.0, 700)
rho = sde.evolve_density(process, sde.point_mass(grid, 2.0), grid, (0.0, 1.0))
print(sde.compare(paths, rho))
"""

from . import entropy as entropy
from . import errors as errors
from . import plot as plot
from . import targets as targets
from .adapted import adapted_grid as adapted_grid
from .arrival import PassageDensity as PassageDensity
from .arrival import first_passage_density as first_passage_density
from .backward import ExpectationOnGrid as ExpectationOnGrid
from .backward import evolve_expectation as evolve_expectation
from .bind import methods as methods
from .compare import Comparison as Comparison
from .compare import compare as compare
from .density import Density as Density
from .domain import domain as domain
from .evolution import evolve_density as evolve_density
from .evolution import stationary_density as stationary_density
from .expect import Expectation as Expectation
from .expect import expect as expect
from .fokker_planck.boundary import Inflow as Inflow
from .fokker_planck.boundary import Robin as Robin
from .fokker_planck.cells import cell_averages as cell_averages
from .fokker_planck.cells import gaussian as gaussian
from .fokker_planck.cells import point_mass as point_mass
from .fokker_planck.grid import Grid as Grid
from .generate import data as data
from .generate import metrics as metrics
from .generate.conditional import LinearMeasurement as LinearMeasurement
from .generate.conditional import blur as blur
from .generate.conditional import greys as greys
from .generate.latent import decode as decode
from .generate.latent import encode as encode
from .generate.latent import interpolate as interpolate
from .generate.likelihood import bits_per_dim as bits_per_dim
from .generate.likelihood import log_likelihood as log_likelihood
from .generate.samplers import sample as sample
from .grid_function import GridFunction as GridFunction
from .integrate.brownian import BrownianPath as BrownianPath
from .integrate.brownian import brownian_increments as brownian_increments
from .integrate.reductions import Autocorrelation as Autocorrelation
from .integrate.reductions import FirstPassage as FirstPassage
from .integrate.reductions import Histogram as Histogram
from .integrate.reductions import Moments as Moments
from .integrate.reductions import Observable as Observable
from .integrate.reductions import Occupation as Occupation
from .integrate.reductions import Quantiles as Quantiles
from .integrate.walls import Walls as Walls
from .passage import PassageTimes as PassageTimes
from .passage import committor as committor
from .passage import mean_first_passage_time as mean_first_passage_time
from .processes.base import Process as Process
from .processes.cox_ingersoll_ross import CoxIngersollRoss as CoxIngersollRoss
from .processes.custom import ito as ito
from .processes.custom import stratonovich as stratonovich
from .processes.double_well import DoubleWell as DoubleWell
from .processes.gaussian import GaussianProcess as GaussianProcess
from .processes.geometric import GeometricBrownian as GeometricBrownian
from .processes.langevin import Langevin as Langevin
from .processes.langevin import UnderdampedLangevin as UnderdampedLangevin
from .processes.marginal import marginal_score as marginal_score
from .processes.noising import EDM as EDM
from .processes.noising import Cosine as Cosine
from .processes.noising import SubVariancePreserving as SubVariancePreserving
from .processes.noising import VarianceExploding as VarianceExploding
from .processes.noising import VariancePreserving as VariancePreserving
from .processes.ornstein_uhlenbeck import OrnsteinUhlenbeck as OrnsteinUhlenbeck
from .processes.reverse_time import ProbabilityFlow as ProbabilityFlow
from .processes.reverse_time import ReverseProcess as ReverseProcess
from .processes.wiener import Wiener as Wiener
from .saving import load as load
from .saving import save as save
from .score.energy import EnergyMLP as EnergyMLP
from .score.energy_fit import EnergyFit as EnergyFit
from .score.energy_fit import fit_energy as fit_energy
from .score.fit import Fit as Fit
from .score.fit import fit_score as fit_score
from .score.mixer import MixerMLP as MixerMLP
from .score.network import ScoreMLP as ScoreMLP
from .score.objectives import fisher_divergence as fisher_divergence
from .score.partition import LogPartition as LogPartition
from .score.partition import log_partition as log_partition
from .score.residual import ResidualMLP as ResidualMLP
from .score.vae import VAE as VAE
from .score.vae_fit import VAEFit as VAEFit
from .score.vae_fit import fit_vae as fit_vae
from .simulate import Paths as Paths
from .simulate import simulate as simulate
from .spectrum import RelaxationModes as RelaxationModes
from .spectrum import relaxation_modes as relaxation_modes

__version__ = "0.1.0"
