/* SG_IO without a kernel that has SCSI: preloaded into a program, it lets that program open /dev/vsg/LUN and sends what it
 * asks of it to that logical unit of the iSCSI target named by SGSHIM_TARGET (iscsi://HOST:PORT/TARGET), through libiscsi.
 *
 *     program ── open("/dev/vsg/1"), ioctl(SG_IO) ──▶ this ── libiscsi ──▶ any target
 *
 *     gcc -shared -fPIC -o sgshim.so sgshim.c -liscsi -ldl
 *
 * One session for each open, as the kernel has one for each host: unit attentions that wait for a new session are taken
 * by the shim, as the kernel takes them when it finds a device. Descriptors come from /dev/null, so that fstat and poll
 * work. For programs of one thread.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <scsi/sg.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define PREFIX "/dev/vsg/"
#define DESCRIPTORS_MAX 1024
#define ATTENTIONS_MAX 8
#define RESERVED_BYTES (1 << 20)
#define SENSE_HEAD_BYTES 2 /* libiscsi leaves iSCSI's length before the sense data */
#define HOST_TIMED_OUT 3   /* DID_TIME_OUT */
#define DRIVER_SENSE 8
#ifndef SCSI_IOCTL_GET_IDLUN /* the kernel's, and in no header of glibc's */
#define SCSI_IOCTL_GET_IDLUN 0x5382
#define SCSI_IOCTL_GET_BUS_NUMBER 0x5386
#endif

struct device {
	struct iscsi_context *session;
	int lun;
	int reserved;
};

static struct device devices[DESCRIPTORS_MAX];

static struct device *device_of(int fd)
{
	return fd >= 0 && fd < DESCRIPTORS_MAX && devices[fd].session ? &devices[fd] : NULL;
}

static void take_attentions(struct iscsi_context *session, int lun)
{
	for (int i = 0; i < ATTENTIONS_MAX; i++) {
		struct scsi_task *task = iscsi_testunitready_sync(session, lun);
		int attention = task && task->status == SCSI_STATUS_CHECK_CONDITION &&
				task->sense.key == SCSI_SENSE_UNIT_ATTENTION;
		if (task)
			scsi_free_scsi_task(task);
		if (!attention)
			return;
	}
}

static struct iscsi_context *log_in(const char *lun_text, int *lun)
{
	char address[512];
	const char *target = getenv("SGSHIM_TARGET");
	if (!target)
		return NULL;
	snprintf(address, sizeof address, "%s/%s", target, lun_text);
	struct iscsi_context *session = iscsi_create_context("iqn.2026-11.vcbproxy:sgshim");
	struct iscsi_url *url = session ? iscsi_parse_full_url(session, address) : NULL;
	if (!url) {
		fprintf(stderr, "sgshim: %s is no iSCSI URL\n", address);
		return NULL;
	}
	*lun = url->lun;
	iscsi_set_targetname(session, url->target);
	const char *nexus = getenv("SGSHIM_NEXUS"); /* a kernel's programs all come by one I_T nexus; so do those given one */
	if (nexus)
		iscsi_set_isid_random(session, (uint32_t)atoi(nexus), 0);
	iscsi_set_session_type(session, ISCSI_SESSION_NORMAL);
	iscsi_set_header_digest(session, ISCSI_HEADER_DIGEST_NONE);
	iscsi_set_noautoreconnect(session, 1);
	int failed = iscsi_connect_sync(session, url->portal) || iscsi_login_sync(session);
	iscsi_destroy_url(url);
	if (failed) {
		fprintf(stderr, "sgshim: %s: %s\n", address, iscsi_get_error(session));
		iscsi_destroy_context(session);
		return NULL;
	}
	take_attentions(session, *lun);
	return session;
}

static int open_device(const char *lun_text)
{
	int (*real_open)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
	int lun;
	struct iscsi_context *session = log_in(lun_text, &lun);
	if (!session) {
		errno = ENXIO;
		return -1;
	}
	int fd = real_open("/dev/null", O_RDWR | O_CLOEXEC);
	if (fd < 0 || fd >= DESCRIPTORS_MAX) {
		iscsi_destroy_context(session);
		errno = EMFILE;
		return -1;
	}
	devices[fd] = (struct device){ session, lun, RESERVED_BYTES };
	return fd;
}

#define WRAP_OPEN(name)                                                                          \
	int name(const char *path, int flags, ...)                                              \
	{                                                                                       \
		mode_t mode = 0;                                                                \
		if (flags & (O_CREAT | __O_TMPFILE)) {                                          \
			va_list rest;                                                           \
			va_start(rest, flags);                                                  \
			mode = va_arg(rest, mode_t);                                            \
			va_end(rest);                                                           \
		}                                                                               \
		if (!strncmp(path, PREFIX, strlen(PREFIX)))                                     \
			return open_device(path + strlen(PREFIX));                              \
		int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, #name);                  \
		return real(path, flags, mode);                                                 \
	}

WRAP_OPEN(open)
WRAP_OPEN(open64)

/* What a program compiled with _FORTIFY_SOURCE calls in their place. */
int __open_2(const char *path, int flags)
{
	return open(path, flags);
}

int __open64_2(const char *path, int flags)
{
	return open64(path, flags);
}

int close(int fd)
{
	int (*real)(int) = dlsym(RTLD_NEXT, "close");
	struct device *device = device_of(fd);
	if (device) {
		iscsi_logout_sync(device->session);
		iscsi_destroy_context(device->session);
		device->session = NULL;
	}
	return real(fd);
}

static int give_sense(const struct scsi_task *task, struct sg_io_hdr *io)
{
	int length = task->datain.size - SENSE_HEAD_BYTES;
	if (length > io->mx_sb_len)
		length = io->mx_sb_len;
	if (!io->sbp || length <= 0)
		return 0;
	memcpy(io->sbp, task->datain.data + SENSE_HEAD_BYTES, length);
	return length;
}

static int run(struct device *device, struct sg_io_hdr *io)
{
	int direction = io->dxfer_direction == SG_DXFER_TO_DEV     ? SCSI_XFER_WRITE :
			io->dxfer_direction == SG_DXFER_FROM_DEV ? SCSI_XFER_READ :
								   SCSI_XFER_NONE;
	int length = direction == SCSI_XFER_NONE ? 0 : io->dxfer_len;
	struct scsi_task *task = scsi_create_task(io->cmd_len, io->cmdp, direction, length);
	struct iscsi_data out = { .size = length, .data = io->dxferp };
	if (!task) {
		errno = ENOMEM;
		return -1;
	}
	if (direction == SCSI_XFER_READ)
		scsi_task_add_data_in_buffer(task, length, io->dxferp);
	io->status = io->masked_status = io->sb_len_wr = 0;
	io->host_status = io->driver_status = io->resid = io->info = 0;
	iscsi_set_timeout(device->session, (io->timeout + 999) / 1000);
	if (!iscsi_scsi_command_sync(device->session, device->lun, task, direction == SCSI_XFER_WRITE ? &out : NULL) ||
	    task->status > 0xff) { /* libiscsi has statuses of its own for what did not get through */
		io->host_status = HOST_TIMED_OUT;
		io->info = SG_INFO_CHECK;
		scsi_free_scsi_task(task);
		return 0;
	}
	io->status = task->status;
	io->masked_status = task->status >> 1;
	if (task->residual_status == SCSI_RESIDUAL_UNDERFLOW)
		io->resid = task->residual;
	if (task->status == SCSI_STATUS_CHECK_CONDITION) {
		io->sb_len_wr = give_sense(task, io);
		io->driver_status = DRIVER_SENSE;
	}
	if (io->status)
		io->info = SG_INFO_CHECK;
	scsi_free_scsi_task(task);
	return 0;
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list rest;
	va_start(rest, request);
	void *argument = va_arg(rest, void *);
	va_end(rest);
	struct device *device = device_of(fd);
	if (!device) {
		int (*real)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
		return real(fd, request, argument);
	}
	switch (request) {
	case SG_IO:
		return run(device, argument);
	case SG_GET_VERSION_NUM:
		*(int *)argument = 30536;
		return 0;
	case SG_SET_TIMEOUT:
		return 0;
	case SG_SET_RESERVED_SIZE:
		device->reserved = *(int *)argument < RESERVED_BYTES ? *(int *)argument : RESERVED_BYTES;
		return 0;
	case SG_GET_RESERVED_SIZE:
		*(int *)argument = device->reserved;
		return 0;
	case SCSI_IOCTL_GET_IDLUN: /* mtx ends where it does not get this */
		memset(argument, 0, 2 * sizeof(int));
		*(int *)argument = device->lun << 8;
		return 0;
	case SCSI_IOCTL_GET_BUS_NUMBER:
		*(int *)argument = 0;
		return 0;
	}
	errno = ENOTTY;
	return -1;
}
