# Boots slot A or B according to the flags kept by update-agent (backend `uboot-env`).
# Compile it with: mkimage -A arm64 -T script -C none -d boot.cmd boot.scr
#
# Reads and changes, in the saved environment:
#   BOOT_ORDER                 slots that may be booted, the preferred one first
#   BOOT_A_LEFT, BOOT_B_LEFT   0: not booted; 1 to 9: tries left; above 9: confirmed, never changed
# Calls, if the board's environment has them:
#   racklet_boot_a, racklet_boot_b   load and start the slot; return only on failure
#   racklet_save                     saves the environment; default `saveenv`
#   racklet_rescue                   runs if no slot can be booted
# Kernel parameters: racklet.slot, racklet.boot and racklet.tries.
#
# No arithmetic: not every U-Boot has `setexpr`. The script uses only what hush and POSIX shells have in
# common, so that the project's tests run this very file.

if test -z "${racklet_save}"; then setenv racklet_save saveenv; fi

for slot in ${BOOT_ORDER}; do
    left=0
    if test "${slot}" = "A"; then left=${BOOT_A_LEFT}; fi
    if test "${slot}" = "B"; then left=${BOOT_B_LEFT}; fi
    if test -z "${left}"; then left=0; fi

    after=none
    if test "${left}" = "1"; then after=0; fi
    if test "${left}" = "2"; then after=1; fi
    if test "${left}" = "3"; then after=2; fi
    if test "${left}" = "4"; then after=3; fi
    if test "${left}" = "5"; then after=4; fi
    if test "${left}" = "6"; then after=5; fi
    if test "${left}" = "7"; then after=6; fi
    if test "${left}" = "8"; then after=7; fi
    if test "${left}" = "9"; then after=8; fi

    state=none
    if test "${after}" != "none"; then
        # The try is spent before the boot. If it cannot be saved, the tries would never run out: skip
        # the slot.
        if test "${slot}" = "A"; then setenv BOOT_A_LEFT ${after}; fi
        if test "${slot}" = "B"; then setenv BOOT_B_LEFT ${after}; fi
        if run racklet_save; then
            state=trial
        else
            echo "racklet: slot ${slot} is on trial, but its try cannot be saved"
        fi
    elif test "${left}" -gt 9; then
        state=confirmed
        after=0
    fi

    if test "${state}" != "none"; then
        echo "racklet: slot ${slot}, ${state}, ${after} tries left"
        base=${bootargs}
        if test "${slot}" = "A"; then
            setenv bootargs "${base} racklet.slot=a racklet.boot=${state} racklet.tries=${after}"
            run racklet_boot_a
        fi
        if test "${slot}" = "B"; then
            setenv bootargs "${base} racklet.slot=b racklet.boot=${state} racklet.tries=${after}"
            run racklet_boot_b
        fi
        setenv bootargs "${base}"
        echo "racklet: slot ${slot} did not start"
    fi
done

echo "racklet: no slot can be booted"
if test -n "${racklet_rescue}"; then run racklet_rescue; fi
# Never a loop without delay.
sleep 60
reset
