"""The only room that touches the machine: devlink, OVSDB, udev, sysfs, links, systemd. Each behind a Protocol of `machine.py`."""
