# Keeps the flags in two copies on a U-Boot that was not built with CONFIG_SYS_REDUNDAND_ENVIRONMENT:
# the same bytes as `fw_printenv` with two lines in fw_env.config, and `boot.env_flags = "incrementing"`.
# Put it before boot.cmd, in one script. Needs `env import`, `env export`, `itest`, `cp` and `mw`.
#
# Calls, which the board sets before:
#   racklet_read_1, racklet_read_2     read a copy of 0x4000 bytes to 0x6000000, to 0x6010000
#   racklet_write_1, racklet_write_2   write a copy of 0x4000 bytes from 0x6020000
# Memory begins elsewhere on many ARM boards. racklet_ram replaces the digits 60 that all addresses begin with, here
# and in what the board sets: with `setenv racklet_ram 460`, the copies are at 0x46000000, 0x46010000 and 0x46020000.
#
# A copy consists of a checksum (4 bytes), a flag (1 byte) and the variables. `env import` of such a U-Boot does
# not expect a flag: the checksum is moved next to the variables, over the flag, which is saved at 0x6008000.
# (`env export` clears more memory after its address than requested, so nothing is stored there.)

if test -z "${racklet_ram}"; then setenv racklet_ram 60; fi
setenv racklet_names BOOT_ORDER BOOT_A_LEFT BOOT_B_LEFT

# Data that an earlier boot left in memory must not look like a copy.
mw.b 0x${racklet_ram}00000 0 8
mw.b 0x${racklet_ram}10000 0 8
run racklet_read_1
run racklet_read_2
cp.b 0x${racklet_ram}00004 0x${racklet_ram}08001 1
cp.b 0x${racklet_ram}10004 0x${racklet_ram}08002 1
cp.b 0x${racklet_ram}00000 0x${racklet_ram}08010 4
cp.b 0x${racklet_ram}08010 0x${racklet_ram}00001 4
cp.b 0x${racklet_ram}10000 0x${racklet_ram}08010 4
cp.b 0x${racklet_ram}08010 0x${racklet_ram}10001 4

# The copy with the greater flag counts, where 0 comes after 255; the first one if they are equal.
setenv racklet_copies 1 2
if itest.b *0x${racklet_ram}08002 -gt *0x${racklet_ram}08001; then setenv racklet_copies 2 1; fi
if itest.b *0x${racklet_ram}08001 == 0xff; then
    if itest.b *0x${racklet_ram}08002 == 0; then setenv racklet_copies 2 1; fi
fi
if itest.b *0x${racklet_ram}08001 == 0; then
    if itest.b *0x${racklet_ram}08002 == 0xff; then setenv racklet_copies 1 2; fi
fi

setenv racklet_copy none
for copy in ${racklet_copies}; do
    if test "${racklet_copy}" = "none"; then
        if test "${copy}" = "1"; then
            if env import -c 0x${racklet_ram}00001 0x3fff ${racklet_names}; then setenv racklet_copy 1; fi
        fi
        if test "${copy}" = "2"; then
            if env import -c 0x${racklet_ram}10001 0x3fff ${racklet_names}; then setenv racklet_copy 2; fi
        fi
        if test "${racklet_copy}" != "${copy}"; then
            echo "racklet: copy ${copy} of the environment is not whole"
        fi
    fi
done
echo "racklet: flags from copy ${racklet_copy}"

# The other copy is written, with a flag that makes it count; without arithmetic that is 1 after 0, 0 after 255,
# and 255 after all others. A power cut leaves the previous copy valid.
setenv racklet_make 'env export -c -s 0x3fff 0x${racklet_ram}20001 ${racklet_names} && cp.b 0x${racklet_ram}20001 0x${racklet_ram}08010 4 && cp.b 0x${racklet_ram}08010 0x${racklet_ram}20000 4'
setenv racklet_flag 'mw.b 0x${racklet_ram}20004 0xff; if itest.b *0x${racklet_ram}08003 == 0xff; then mw.b 0x${racklet_ram}20004 0; fi; if itest.b *0x${racklet_ram}08003 == 0; then mw.b 0x${racklet_ram}20004 1; fi'
setenv racklet_save_1 'cp.b 0x${racklet_ram}08002 0x${racklet_ram}08003 1; run racklet_flag; if run racklet_write_1; then cp.b 0x${racklet_ram}20004 0x${racklet_ram}08001 1; setenv racklet_copy 1; setenv racklet_saved yes; fi'
setenv racklet_save_2 'cp.b 0x${racklet_ram}08001 0x${racklet_ram}08003 1; run racklet_flag; if run racklet_write_2; then cp.b 0x${racklet_ram}20004 0x${racklet_ram}08002 1; setenv racklet_copy 2; setenv racklet_saved yes; fi'
setenv racklet_save 'setenv racklet_saved no; if run racklet_make; then if test "${racklet_copy}" = "1"; then run racklet_save_2; else run racklet_save_1; fi; fi; test "${racklet_saved}" = "yes"'
