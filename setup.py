"""Packaging of tfmm. Tool settings are in pyproject.toml, exact pins in requirements.lock."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "([^"]+)"$', (HERE / "tfmm" / "__init__.py").read_text(), re.MULTILINE
).group(1)

setup(
    name="tfmm",
    version=VERSION,
    description="Multimodal product search and recommendation for shops, on TensorFlow",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    # tensorflow-text 2.16.1 has no wheel for Python 3.12.
    python_requires=">=3.11,<3.12",
    packages=find_packages(include=["tfmm", "tfmm.*"]),
    package_data={"tfmm": ["py.typed", "stock_ops_2.16.txt"]},
    entry_points={"console_scripts": ["tfmm = tfmm.cli:main"]},
    # The one set of versions in which all six TensorFlow packages load natively.
    install_requires=[
        "tensorflow==2.16.2",
        "tf-keras==2.16.0",
        "tensorflow-text==2.16.1",
        "tensorflow-io==0.37.1",
        "tensorflow-hub==0.16.1",
        "tensorflow-recommenders==0.7.7",
        "scann==1.3.2",
        "tensorflow-serving-api==2.16.1",
        "numpy>=1.26,<2",
        # tensorflow-hub imports pkg_resources: gone in 81, a warning at each start in 80.9.
        "setuptools>=70.1,<80.9",
        # pyarrow 26 refuses NumPy 1.26.
        "pyarrow>=17,<26",
        "protobuf>=4.25,<5",
        "click>=8.1",
        "pillow>=10",
        "rich>=13",
    ],
    extras_require={
        # GPL-3: loaded only by the process that speaks the demo shop's queries.
        "demo": ["espeakng-loader==0.2.4"],
        # tfmm.Client converts sounds other than WAV with it.
        "sound": ["soundfile"],
        # `--runner spark` of `tfmm prepare` and `tfmm score`; it needs Java.
        # PySpark 3.5 knows no pandas 3.
        "spark": ["pyspark>=3.5,<3.6", "pandas>=2,<3"],
        # `tfmm score --runner beam`. Beam wants an older Pillow than the lock has.
        "beam": ["apache-beam==2.77.*", "pandas>=2,<3", "pillow<13"],
        "gpu": ["tensorflow[and-cuda]==2.16.2"],
        "test": [
            "hypothesis",
            "import-linter",
            "mypy",
            "pytest",
            "pytest-xdist",
            "ruff",
            "soundfile",
        ],
    },
)
