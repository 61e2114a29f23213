# A VDI from an image, as large as that. Zeros take no space. From a pipe it would be -.
crook cp image.raw vdi:disk
crook ls

# A snapshot, and the space and place of what it holds.
crook snap create disk monday
crook info disk@monday
crook map disk@monday

# Another disk that begins as the snapshot, and shares what neither of them writes to.
crook clone disk@monday copy
crook resize copy +64M

# A backup, while the disk goes on.
crook cp vdi:disk@monday backup.raw
cmp image.raw backup.raw

# Whether everything can be read, object by object.
crook check disk

# Back to the snapshot: what was written since is gone.
crook cp /etc/passwd vdi:disk
crook snap rollback disk@monday
crook cp vdi:disk - | cmp - image.raw

# And all of it away again.
crook rm copy
crook rm --snapshots disk
