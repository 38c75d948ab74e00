"""What pyproject.toml cannot say: the CUDA sources, which lie beside the package, belong inside it in a wheel."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["infdiff*"]), "infdiff.cuda"],
    package_dir={"infdiff.cuda": "cuda"},
    package_data={
        "infdiff.data": ["demo_faces/*"],
        "infdiff.evaluation": ["report.html"],
        "infdiff.cuda": ["*.cu", "*.cuh"],
    },
)
