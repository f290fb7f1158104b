"""A cluster of processes and one thread come to the same bits: 10⁹ path-steps, a histogram and first passages.

A million paths of a double well take a thousand steps, once on one thread here and once on the workers of a Dask
cluster: here two processes of this machine, and with Client("tcp://scheduler:8786") in place of LocalCluster() as many
machines as that scheduler knows. Dask comes with pip install "sdesim[dask]".
"""

import hashlib
import os
import time

import matplotlib.pyplot as plt
import numpy as np

import sdesim as sde

try:
    from distributed import Client, LocalCluster
except ImportError:
    raise SystemExit('this example needs Dask: pip install "sdesim[dask]"') from None

n, n_steps, span = int(os.environ.get("SDESIM_EXAMPLE_PATHS", 1_000_000)), 1000, (0.0, 5.0)
process = sde.DoubleWell(barrier=1.0, temperature=0.5)
grid = sde.Grid(-2.2, 2.2, 220)


def run(**where):
    """The two statistics, their bits in short, and when how many path-steps were done."""
    reduce = [sde.Histogram(-2.2, 2.2, 220), sde.FirstPassage(upper=0.0, bins=100)]
    start, done = time.perf_counter(), [(0.0, 0.0)]
    paths = sde.simulate(
        process, -1.0, span, n_steps=n_steps, n_paths=n, method="heun", reduce=reduce, seed=1,
        progress=lambda paths, total: done.append((time.perf_counter() - start, paths * n_steps)), **where,
    )  # fmt: skip
    histogram, passage = paths.reductions
    bits = b"".join(a.tobytes() for a in (histogram.counts, passage.density, np.float64(passage.mean_time)))
    return histogram, passage, hashlib.sha256(bits).hexdigest()[:16], np.array(done)


if __name__ == "__main__":  # the workers import this file too
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        histogram, passage, on_cluster, steps = run(executor=client.get_executor())
    alone = run(workers=1)
    for name, (*_, bits, done) in (("cluster", (on_cluster, steps)), ("one thread", alone)):
        print(f"{name:10}: {done[-1, 1]:.3g} path-steps in {done[-1, 0]:4.1f} s, sha256 {bits}")
    assert on_cluster == alone[2]

    rho = sde.evolve_density(process, sde.point_mass(grid, -1.0), grid, span)
    found = sde.compare(histogram, rho)
    print(f"{found.l1:.4f} from the Fokker-Planck equation, by chance {found.l1_floor:.4f}")
    assert found.within_noise
    print(f"{100 * passage.probability[1]:.2f} % have been at the top, after {passage.mean_time:.3f} in the mean")

    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
    left.stairs(histogram.density[-1], grid.edges, fill=True, alpha=0.4, label="paths of the cluster")
    left.plot(grid.centers, rho.final, "k", label="Fokker-Planck")
    left.set(xlabel="x", ylabel="density", title=f"at t = {span[1]:g}, {n:,} paths")
    left.legend()
    middle.stairs(passage.density[1], passage.edges, color="C1")
    middle.set(xlabel="t", ylabel="density of the first passage", title="first time at the top of the barrier")
    right.step(*steps.T, where="post", label="two processes")
    right.step(*alone[3].T, where="post", label="one thread")
    right.set(xlabel="seconds", ylabel="path-steps done", title=f"the same bits: {on_cluster}")
    right.legend()
    fig.savefig("cluster.png", dpi=110)
