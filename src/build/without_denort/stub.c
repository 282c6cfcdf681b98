// SPDX-License-Identifier: MIT
/*
 * The first code that runs in an executable made by executable.ts without
 * denort. It turns "./dblock-ramdisk --size 4GiB" into "deno run <options>
 * /proc/self/fd/3 --size 4GiB" inside the same process, then jumps to Deno's
 * own entry. It is not a loader: the kernel and ld.so have mapped Deno already.
 *
 * It is flat, position-independent code without libc and without writable data,
 * in a segment of its own. Right behind it lies the payload that elf.ts writes:
 * struct payload, then a table of bundles, then strings.
 *
 * Why here and not in a wrapper: nothing is unpacked or copied (the file is
 * 95 MB), there is no second exec, `ps` shows what the user typed, and no thread
 * exists yet, so what is set on this one holds for every thread of V8.
 */
typedef unsigned long u64;

/* Addresses are the file's (as in its ELF headers), not yet relocated. */
struct payload {
	u64 stub_address;
	u64 entry_address;	/* where Deno itself starts */
	u64 environ_address;	/* the GOT entry that points to libc's environ */
	u64 option_count;	/* argv[0] and Deno's options, in the strings */
	u64 variable_count;	/* NAME=value, in the strings after the options */
	u64 bundle_count;	/* the first is the main program */
	u64 strings_offset;	/* this and all others: from this struct */
	struct bundle {
		u64 name_offset;
		u64 source_offset;
		u64 source_bytes;
	} bundles[];
};

/* Hidden: found by their distance, without a table of addresses. */
#pragma GCC visibility push(hidden)
extern const unsigned char stub_start[], stub_end[];
#pragma GCC visibility pop

enum {
#if defined(__x86_64__)
	SYS_WRITE = 1,
	SYS_CLOSE = 3,
	SYS_FCNTL = 72,
	SYS_GETCWD = 79,
	SYS_CHDIR = 80,
	SYS_PRCTL = 157,
	SYS_EXIT_GROUP = 231,
	SYS_READLINKAT = 267,
	SYS_MEMFD_CREATE = 319,
#elif defined(__aarch64__)
	SYS_GETCWD = 17,
	SYS_FCNTL = 25,
	SYS_CHDIR = 49,
	SYS_CLOSE = 57,
	SYS_WRITE = 64,
	SYS_READLINKAT = 78,
	SYS_EXIT_GROUP = 94,
	SYS_PRCTL = 167,
	SYS_MEMFD_CREATE = 279,
#endif
	AT_FDCWD = -100,
	MFD_CLOEXEC = 1,
	F_DUPFD_CLOEXEC = 1030,
	F_GETFD = 1,
	PR_SET_IO_FLUSHER = 57,
	FD_LIMIT = 4096,
};

/*
 * The entry. The stack is as the kernel left it for a program: argc at its top.
 * rdx, or x0, is ld.so's exit function and is handed on. stub_room() says how
 * much the new argc, argv, envp and auxv take; stub_fill() writes them below the
 * old ones.
 */
#if defined(__x86_64__)
__asm__(
	".section .text.entry,\"ax\"\n"
	"stub_start:\n"
	"	mov %rsp, %rbx\n"
	"	mov %rdx, %r12\n"
	"	and $-16, %rsp\n"
	"	mov %rbx, %rdi\n"
	"	call stub_room\n"
	"	sub %rax, %rsp\n"
	"	and $-16, %rsp\n"
	"	mov %rbx, %rdi\n"
	"	mov %rsp, %rsi\n"
	"	call stub_fill\n"
	"	mov %r12, %rdx\n"
	"	xor %ebx, %ebx\n"
	"	xor %r12d, %r12d\n"
	"	xor %ebp, %ebp\n"
	"	jmp *%rax\n"
	".text\n");
#elif defined(__aarch64__)
__asm__(
	".section .text.entry,\"ax\"\n"
	"stub_start:\n"
	"	mov x19, sp\n"
	"	mov x20, x0\n"
	"	mov x0, x19\n"
	"	bl stub_room\n"
	"	mov x1, sp\n"
	"	sub x1, x1, x0\n"
	"	and x1, x1, #-16\n"
	"	mov sp, x1\n"
	"	mov x0, x19\n"
	"	bl stub_fill\n"
	"	mov x16, x0\n"
	"	mov x0, x20\n"
	"	mov x29, xzr\n"
	"	mov x30, xzr\n"
	"	br x16\n"
	".text\n");
#endif

static long call(long number, u64 a, u64 b, u64 c, u64 d, u64 e)
{
#if defined(__x86_64__)
	register u64 r10 __asm__("r10") = d;
	register u64 r8 __asm__("r8") = e;
	long result;

	__asm__ volatile("syscall" : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return result;
#elif defined(__aarch64__)
	register u64 x8 __asm__("x8") = number;
	register u64 x0 __asm__("x0") = a;
	register u64 x1 __asm__("x1") = b;
	register u64 x2 __asm__("x2") = c;
	register u64 x3 __asm__("x3") = d;
	register u64 x4 __asm__("x4") = e;

	__asm__ volatile("svc #0" : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4)
			 : "memory");
	return x0;
#endif
}

static u64 length(const char *string)
{
	u64 n = 0;

	while (string[n])
		n++;
	return n;
}

/* One line on stderr, prefixed by the name the user typed, and exit status 1. */
static void die(const char *program, const char *why)
{
	call(SYS_WRITE, 2, (u64)program, length(program), 0, 0);
	call(SYS_WRITE, 2, (u64)": ", 2, 0, 0);
	call(SYS_WRITE, 2, (u64)why, length(why), 0, 0);
	call(SYS_WRITE, 2, (u64)"\n", 1, 0, 0);
	call(SYS_EXIT_GROUP, 1, 0, 0, 0, 0);
}

static const struct payload *payload(void)
{
	return (const struct payload *)stub_end;
}

static const char *strings(void)
{
	return (const char *)payload() + payload()->strings_offset;
}

/* Same name up to and including '='. */
static int same_variable(const char *a, const char *b)
{
	while (*a == *b && *a && *a != '=') {
		a++;
		b++;
	}
	return *a == '=' && *b == '=';
}

static int is_replaced(const char *variable)
{
	const char *string = strings();
	u64 i;

	for (i = 0; i < payload()->option_count; i++)
		string += length(string) + 1;
	for (i = 0; i < payload()->variable_count; i++) {
		if (same_variable(string, variable))
			return 1;
		string += length(string) + 1;
	}
	return 0;
}

/*
 * The bundles refer to each other by distance ("my own number plus one"), so
 * they need consecutive file descriptors, whatever the parent left open.
 */
static long open_bundles(const char *program)
{
	const struct payload *p = payload();
	u64 first = 3, i = 0, done;
	long fd, moved, written;

	while (i < p->bundle_count) {
		if (first > FD_LIMIT)
			die(program, "cannot start: no free file descriptors");
		if (call(SYS_FCNTL, first + i, F_GETFD, 0, 0, 0) >= 0) {
			first += i + 1;
			i = 0;
		} else {
			i++;
		}
	}
	for (i = 0; i < p->bundle_count; i++) {
		const struct bundle *b = &p->bundles[i];

		fd = call(SYS_MEMFD_CREATE, (u64)p + b->name_offset, MFD_CLOEXEC, 0, 0, 0);
		if (fd < 0)
			die(program, "cannot start: memfd_create failed");
		for (done = 0; done < b->source_bytes; done += written) {
			written = call(SYS_WRITE, fd, (u64)p + b->source_offset + done,
				       b->source_bytes - done, 0, 0);
			if (written <= 0)
				die(program, "cannot start: no memory for the program's source");
		}
		if ((u64)fd == first + i)
			continue;
		moved = call(SYS_FCNTL, fd, F_DUPFD_CLOEXEC, first + i, 0, 0);
		if ((u64)moved != first + i)
			die(program, "cannot start: too few file descriptors (ulimit -n)");
		call(SYS_CLOSE, fd, 0, 0, 0, 0);
	}
	return first;
}

/* Writes "/proc/self/fd/N" and returns the byte behind its end. */
static char *descriptor_path(char *to, long fd)
{
	static const char prefix[] = "/proc/self/fd/";
	char digits[20];
	u64 i, n = 0;

	for (i = 0; i < sizeof(prefix) - 1; i++)
		*to++ = prefix[i];
	do {
		digits[n++] = '0' + fd % 10;
		fd /= 10;
	} while (fd);
	while (n)
		*to++ = digits[--n];
	*to++ = 0;
	return to;
}

/* An upper bound of the bytes that stub_fill() writes. */
u64 stub_room(const u64 *stack)
{
	u64 count = stack[0] + 1, path_bytes = 64;

	while (stack[1 + count])
		count++;
	count += 2;
	while (stack[count])
		count += 2;
	return 8 * (count + 8 + payload()->option_count + payload()->variable_count) + path_bytes;
}

/* Does everything; returns the address to jump to. `to` becomes the stack. */
u64 stub_fill(const u64 *stack, u64 *to)
{
	const struct payload *p = payload();
	u64 base = (u64)stub_start - p->stub_address;
	const char *program = stack[0] ? (const char *)stack[1] : "dblock";
	const char *string = strings();
	const u64 *from = stack + 1;
	u64 *path_slot, *environment, i;
	char directory[8];

	if (call(SYS_READLINKAT, AT_FDCWD, (u64)"/proc/self/exe", (u64)directory, sizeof(directory), 0) < 0)
		die(program, "cannot start without /proc; type: mount -t proc proc /proc");
	/* Deno does not start in a directory that was removed (-ENOENT). */
	if (call(SYS_GETCWD, (u64)directory, sizeof(directory), 0, 0, 0) == -2)
		call(SYS_CHDIR, (u64)"/", 0, 0, 0, 0);
	/* Needs CAP_SYS_RESOURCE. Whoever needs the effect reads it back. */
	call(SYS_PRCTL, PR_SET_IO_FLUSHER, 1, 0, 0, 0);

	*to++ = p->option_count + 1 + (stack[0] ? stack[0] - 1 : 0);
	for (i = 0; i < p->option_count; i++) {
		*to++ = (u64)string;
		string += length(string) + 1;
	}
	path_slot = to++;
	for (i = 0; i < stack[0]; i++, from++)
		if (i)
			*to++ = *from;
	*to++ = 0;
	from++;

	environment = to;
	for (; *from; from++)
		if (!is_replaced((const char *)*from))
			*to++ = *from;
	for (i = 0; i < p->variable_count; i++) {
		*to++ = (u64)string;
		string += length(string) + 1;
	}
	*to++ = 0;
	for (from++; from[0]; from += 2) {
		*to++ = from[0];
		*to++ = from[1];
	}
	*to++ = 0;
	*to++ = 0;
	*path_slot = (u64)to;
	descriptor_path((char *)to, open_bundles(program));

	/* libc took environ from the old stack before this code ran. */
	**(u64 **)(base + p->environ_address) = (u64)environment;
	return base + p->entry_address;
}
