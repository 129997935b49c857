import time
def test_a(stage):
    stage.wait_condition("Available", "True")
def test_b(stage):
    t=time.monotonic()
    stage.lab.tenant.network().set("cut")
    stage.wait_condition("TenantClusterApiServerUnreachable", "True")
    print("cut", time.monotonic()-t)
    t=time.monotonic()
    stage.lab.tenant.network().set("pass")
    stage.wait_condition("TenantClusterApiServerUnreachable", "False")
    print("mend", time.monotonic()-t)
def test_c(stage):
    pass
