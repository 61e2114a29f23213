# Any image of QEMU's becomes a VDI of 64 MiB. nbdkit runs as long as the command does.
nbdkit -U - sheepdog addr=$SHEEPDOG_ADDR vdi=vm1 create=64M \
    --run 'qemu-img convert -n -f qcow2 -O raw image.qcow2 "$uri"'

# The VDI as a disk, on a socket, until nbdkit is ended.
nbdkit -U disk.sock -P nbdkit.pid sheepdog addr=$SHEEPDOG_ADDR vdi=vm1
qemu-io -f raw -c 'write -P 7 1M 64k' -c flush 'nbd+unix:///?socket=disk.sock'

# A snapshot meanwhile; what is written later is not in it.
crook snap create vm1 monday
qemu-io -f raw -c 'write -P 8 1M 64k' -c flush 'nbd+unix:///?socket=disk.sock'
kill $(cat nbdkit.pid)

# The snapshot as a file.
nbdkit -U - sheepdog addr=$SHEEPDOG_ADDR vdi=vm1 snapshot=monday --run 'nbdcopy "$uri" monday.raw'
qemu-io -f raw -r -c 'read -P 7 1M 64k' monday.raw
