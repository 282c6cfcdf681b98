// SPDX-License-Identifier: GPL-2.0
/*
 * dblock: block devices that a process answers for. The module's beginning and
 * end; what it does is in the other files, README.md says in which.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include <linux/stringify.h>

#include "dblock.h"

/* Starts and removes disks, so that neither runs in a server's own thread. Two of
 * them: a start waits for its server, and no number of those may keep a removal
 * waiting.
 */
struct workqueue_struct *dblock_start_workqueue;
struct workqueue_struct *dblock_remove_workqueue;

bool dblock_debug;
module_param_named(debug, dblock_debug, bool, 0644);
MODULE_PARM_DESC(debug, "Log every change of state, attachment and resize, as dynamic debug does where the kernel has it (default N)");

static int __init dblock_init(void)
{
	int err = -ENOMEM;

	dblock_start_workqueue = alloc_workqueue("dblock-start", WQ_UNBOUND, 0);
	if (!dblock_start_workqueue)
		return err;
	dblock_remove_workqueue = alloc_workqueue("dblock-remove", WQ_UNBOUND,
						  0);
	if (!dblock_remove_workqueue)
		goto destroy_start_workqueue;
	err = dblock_watch_init();
	if (err)
		goto destroy_remove_workqueue;
	err = dblock_registry_init();
	if (err)
		goto exit_watch;
	err = dblock_control_init();
	if (err)
		goto exit_registry;
	return 0;

exit_registry:
	dblock_registry_exit();
exit_watch:
	dblock_watch_exit();
destroy_remove_workqueue:
	destroy_workqueue(dblock_remove_workqueue);
destroy_start_workqueue:
	destroy_workqueue(dblock_start_workqueue);
	return err;
}

/* Every device and every open file holds the module, so none is left here; a
 * work that dropped the last device may still be on its last lines.
 */
static void __exit dblock_exit(void)
{
	dblock_control_exit();
	dblock_watch_exit();
	destroy_workqueue(dblock_remove_workqueue);
	destroy_workqueue(dblock_start_workqueue);
	dblock_registry_exit();
}

module_init(dblock_init);
module_exit(dblock_exit);

MODULE_DESCRIPTION("Block devices answered by a process");
MODULE_AUTHOR("The dblock developers");
MODULE_LICENSE("GPL");
MODULE_VERSION("1");
/* For modinfo: whoever packs a module and a server together can see that they fit. */
MODULE_INFO(abi, __stringify(DBLOCK_ABI_VERSION));
