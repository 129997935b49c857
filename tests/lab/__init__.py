"""The lab: real neighbours for the operator, started on loopback.

Two control planes (etcd and kube-apiserver each), kwok nodes, OpenShift's CRDs, a stand-in for the
machine-config-operator, a tenant as OVN-Kubernetes leaves it, and ways to break all of it. The same library serves
the tests' fixtures (`tests.lab.fixtures`) and the command `dpu-lab`. It never imports the product.
"""
