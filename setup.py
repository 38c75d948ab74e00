"""Packaging that pyproject.toml cannot express: folders next to the package belong inside it in a wheel."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["infdiff*"]), "infdiff.configs", "infdiff.cuda"],
    package_dir={"infdiff.configs": "configs", "infdiff.cuda": "cuda"},
    package_data={
        "infdiff": ["py.typed"],
        "infdiff.data": ["demo_faces/*"],
        "infdiff.evaluation": ["report.html"],
        "infdiff.viewer": ["static/*"],
        "infdiff.watch": ["page.html", "watch.js"],
        "infdiff.configs": ["*.yaml"],
        "infdiff.cuda": ["*.cu", "*.cuh"],
    },
)
