#!/bin/sh
# At once and without a sync: what must be durable is durable already, or the test finds out.
echo b >/proc/sysrq-trigger
sleep 100
