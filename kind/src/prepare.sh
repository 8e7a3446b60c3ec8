#!/bin/sh
# On a node, before its kubelet starts for the first time: what the operator's manual has an operator do. The
# folder of this script is made by the runner (src/seed.rs).
#
#   prepare.sh static-pod | systemd | daemon-set
set -eu
from=$(dirname "$0")
done=/etc/kubernetes/kleidi
[ ! -e $done ] || exit 0

install -m 755 "$from/kleidi" /usr/local/bin/kleidi
owner=root
if [ "$1" = systemd ]; then
  owner=kleidi
  id kleidi >/dev/null 2>&1 || useradd --system --no-create-home --shell /usr/sbin/nologin kleidi
fi
install -d -m 700 /etc/kleidi /var/lib/kleidi
cp -R "$from/etc/." /etc/kleidi/
[ ! -d "$from/tokens" ] || cp -R "$from/tokens" /var/lib/kleidi/
chown -R $owner:$owner /etc/kleidi /var/lib/kleidi
chmod -R go= /etc/kleidi /var/lib/kleidi

case $1 in
  static-pod | daemon-set)
    ctr --namespace k8s.io images import "$from/kleidi.tar"
    [ "$1" = daemon-set ] || install -D -m 600 "$from/static-pod.yaml" /etc/kubernetes/manifests/kleidi.yaml
    ;;
  systemd)
    # Nodes of an official image have no SoftHSM.
    [ -e /usr/lib/softhsm/libsofthsm2.so ] || { apt-get update -qq && apt-get install -y -qq --no-install-recommends softhsm2; }
    install -m 644 "$from/kleidi.service" "$from/kleidi.socket" /etc/systemd/system/
    install -m 755 "$from/as-kleidi" /usr/local/sbin/
    systemctl daemon-reload
    systemctl enable --now kleidi.socket kleidi.service
    ;;
esac

# Last: until it is there, kube-apiserver does not start.
rm -rf $done.new
install -d $done.new
cp "$from/encryption.yaml" $done.new/
mv $done.new $done
