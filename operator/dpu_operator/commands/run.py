"""`dpu-operator run`."""

import argparse
import os

from dpu_operator import app
from dpu_operator.kube.own import own_access
from dpu_operator.observe.images import related_images
from dpu_operator.observe.tree import load_tree
from dpu_operator.report import logs


def main(arguments: argparse.Namespace) -> int:
    """Run until SIGTERM. Returns 0 after a clean end."""
    logs.configure(style=arguments.log_format, verbose=arguments.verbose)
    access = own_access(arguments.kubeconfig)
    app.run(access=access, images=related_images(os.environ), tree=load_tree(os.environ), liveness=arguments.liveness)
    return 0
