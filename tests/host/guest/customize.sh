#!/usr/bin/env bash
# Makes a fresh Debian into the virtual DPU's. mmdebstrap calls it as root: customize.sh ROOT GUEST MODULES
set -euo pipefail
root=$1 guest=$2 modules=$3
cp -a --no-preserve=ownership "$guest/root/." "$root/"
chmod 0755 "$root"/usr/local/sbin/*
mkdir -p "$root/opt/dpu" "$root/lib/modules"
ln -s /opt/dpu/dpu-agent "$root/usr/local/bin/dpu-agent"
cp -a --no-preserve=ownership "$modules/." "$root/lib/modules/"
echo dpu >"$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 dpu\n' >"$root/etc/hosts"
: >"$root/etc/fstab"
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
passwd --root "$root" --delete root >/dev/null
# Whatever isn't needed costs seconds at each boot of a machine without KVM.
for unit in systemd-logind.service proc-sys-fs-binfmt_misc.automount systemd-networkd-wait-online.service systemd-pcrphase.service \
	e2scrub_reap.service e2scrub_all.timer apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer \
	systemd-tmpfiles-clean.timer systemd-timesyncd.service getty@tty1.service systemd-update-utmp.service \
	systemd-random-seed.service dev-hugepages.mount dev-mqueue.mount sys-kernel-tracing.mount \
	sys-fs-fuse-connections.mount; do
	ln -sfn /dev/null "$root/etc/systemd/system/$unit"
done
systemctl --root "$root" enable --quiet oob.service
rm -rf "$root"/usr/share/{doc,man,locale,info} "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
