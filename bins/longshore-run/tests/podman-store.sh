# Makes a store for Podman in the directory $1, with an image of nothing but busybox.
mkdir -p "$1"
cd "$1"
export CONTAINERS_CONF=$1/containers.conf CONTAINERS_STORAGE_CONF=$1/storage.conf
cat > containers.conf <<END
[containers]
default_ulimits=["nofile=16384:16384","nproc=16384:16384"]
[engine]
cgroup_manager="cgroupfs"
runtime="runc"
events_logger="file"
END
cat > storage.conf <<END
[storage]
driver="overlay"
runroot="$1/run"
graphroot="$1/graph"
END
if ! podman image exists localhost/longshore-test:1; then
  mkdir -p root/bin root/tmp root/etc
  cp "$(command -v busybox)" root/bin/busybox
  for name in sh cat echo env head ls pwd sleep tail true; do ln -sf busybox "root/bin/$name"; done
  tar -C root -c . | podman import - localhost/longshore-test:1
fi
