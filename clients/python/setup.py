"""Makes clicktower_pb2.py from ../../proto/clicktower.proto while the package is built: by protoc, or by grpcio-tools where that is there."""

import pathlib
import shutil
import subprocess
import sys

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = pathlib.Path(__file__).resolve().parent
PROTO = HERE.parent.parent / "proto"


def protoc():
    if shutil.which("protoc"):
        return ["protoc"]
    try:
        import grpc_tools  # noqa: F401
    except ImportError:
        sys.exit("clicktower: building needs protoc (Debian: protobuf-compiler) or the Python package grpcio-tools")
    return [sys.executable, "-m", "grpc_tools.protoc"]


class BuildWithMessages(build_py):
    def run(self):
        super().run()
        target = pathlib.Path(self.build_lib) / "clicktower"
        if not (PROTO / "clicktower.proto").exists():
            sys.exit(f"clicktower: {PROTO}/clicktower.proto is not there: build inside the repository")
        subprocess.run([*protoc(), f"--proto_path={PROTO}", f"--python_out={target}", "clicktower.proto"], check=True)


setup(cmdclass={"build_py": BuildWithMessages})
