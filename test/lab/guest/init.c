/*
 * PID 1 of the lab: carries out a plan (a text file, one step a line) and runs one command in the world it made.
 *
 * The same program serves both kernels. In User-Mode Linux it is the kernel's init and ends with a power-off; on the
 * machine's own kernel it is the first process of new mount, network and process namespaces and ends with exit().
 * C, because fork and exec cost 30 ms in User-Mode Linux and a system call costs nothing.
 *
 * Environment: labrun = folder with `plan` and `args` (NUL separated command); `status` is written there at the end.
 * Steps:
 *   module PATH          load a kernel module
 *   root LAYER           new root: tmpfs over LAYER over the present root, which stays untouched
 *   share PATH           make the machine's PATH writable under the same name in the new root
 *   keep PATH            make the machine's PATH visible under the same name: it may be a mount of its own, or below /tmp
 *   modules PATH         folder of kernel modules, for modprobe
 *   enter                move into the new root
 *   host NAME            a host: network and mount namespace of its own (own /run, own /etc/resolv.conf)
 *   sysctl HOST KEY VAL  write /proc/sys/KEY in that host's network namespace ("-": the root namespace)
 *   ip HOST COMMAND      a line for `ip -batch`; neighbouring lines of one host go to one process
 *   env KEY=VALUE        environment of the command
 *   folder PATH          where the command starts
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define NEW_ROOT "/run/lab/new"

static int uml;         /* 1 in User-Mode Linux */
static const char *run;  /* folder shared with the machine */
static const char *folder = "/";

static void finish(int status) {
  char path[4096];
  snprintf(path, sizeof path, "%s/status", run);
  FILE *file = fopen(path, "w");
  if (file) {
    fprintf(file, "%d\n", status);
    fclose(file);
  }
  fflush(NULL);
  if (!uml) exit(status);
  tcdrain(1);
  tcdrain(2);
  close(1);
  close(2);
  reboot(RB_POWER_OFF);
}

static void fail(const char *format, ...) {
  int error = errno;
  va_list args;
  va_start(args, format);
  fprintf(stderr, "lab: ");
  vfprintf(stderr, format, args);
  fprintf(stderr, ": %s\n", strerror(error));
  va_end(args);
  finish(125);
}

static char *text(const char *format, ...) {
  char *out;
  va_list args;
  va_start(args, format);
  if (vasprintf(&out, format, args) < 0) abort();
  va_end(args);
  return out;
}

static void make_folder(const char *path) {
  char *copy = strdup(path);
  for (char *slash = copy + 1; (slash = strchr(slash, '/')); slash++) {
    *slash = 0;
    mkdir(copy, 0755);
    *slash = '/';
  }
  if (mkdir(copy, 0755) && errno != EEXIST) fail("mkdir %s", path);
  free(copy);
}

static void put(const char *path, const char *content) {
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (fd < 0 || write(fd, content, strlen(content)) < 0) fail("write %s", path);
  close(fd);
}

static void attach(const char *source, const char *target, const char *type, unsigned long flags, const char *data) {
  if (mount(source, target, type, flags, data)) fail("mount %s on %s (%s)", source, target, type ? type : "bind");
}

/* A folder of the machine: by hostfs out of User-Mode Linux, by a bind mount otherwise. */
static void attach_machine(const char *path, const char *target, int writable) {
  make_folder(target);
  if (uml) attach("machine", target, "hostfs", writable ? 0 : MS_RDONLY, path);
  else {
    attach(path, target, NULL, MS_BIND, NULL);
    if (!writable) attach(NULL, target, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL);
  }
}

static void load_module(const char *path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail("open module %s", path);
  if (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST) fail("load module %s", path);
  close(fd);
}

static int run_to_end(char *const argv[], int input) {
  pid_t child = fork();
  if (child == 0) {
    if (input >= 0) dup2(input, 0);
    execvp(argv[0], argv);
    fprintf(stderr, "lab: %s: %s\n", argv[0], strerror(errno));
    _exit(127);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void make_root(const char *layer) {
  if (!uml) attach("none", "/", NULL, MS_REC | MS_PRIVATE, NULL);
  attach("lab", "/run", "tmpfs", 0, "mode=755");
  make_folder("/run/lab/upper");
  make_folder("/run/lab/work");
  make_folder("/run/lab/layer");
  make_folder(NEW_ROOT);
  /* An overlay refuses a lower folder that lies inside another one, and the layer lies inside "/": so User-Mode Linux
     mounts it a second time, and on the machine's own kernel it is copied. */
  if (uml) attach("layer", "/run/lab/layer", "hostfs", MS_RDONLY, layer);
  else {
    char *copy[] = {"cp", "-a", text("%s/.", layer), "/run/lab/layer", NULL};
    if (run_to_end(copy, -1)) fail("copy %s", layer);
  }
  attach("root", NEW_ROOT, "overlay", 0, "lowerdir=/run/lab/layer:/,upperdir=/run/lab/upper,workdir=/run/lab/work");

  static const struct { const char *type, *path, *data; } systems[] = {
    {"proc", "/proc", ""}, {"sysfs", "/sys", ""}, {"tmpfs", "/run", "mode=755"}, {"tmpfs", "/tmp", "mode=1777"},
  };
  for (size_t i = 0; i < sizeof systems / sizeof *systems; i++) {
    char *path = text(NEW_ROOT "%s", systems[i].path);
    make_folder(path);
    attach("lab", path, systems[i].type, 0, systems[i].data);
  }
  attach("/dev", NEW_ROOT "/dev", NULL, MS_BIND | MS_REC, NULL);
  if (uml) { /* its devtmpfs holds devices only */
    make_folder("/dev/pts");
    make_folder("/dev/shm");
    attach("lab", NEW_ROOT "/dev/pts", "devpts", 0, "mode=600,ptmxmode=666");
    attach("lab", NEW_ROOT "/dev/shm", "tmpfs", 0, "");
    if (symlink("/proc/self/fd", "/dev/fd") || symlink("/proc/self/fd/0", "/dev/stdin") ||
        symlink("/proc/self/fd/1", "/dev/stdout") || symlink("/proc/self/fd/2", "/dev/stderr")) fail("links in /dev");
  }
  make_folder(NEW_ROOT "/run/netns");
  make_folder(NEW_ROOT "/run/mntns");
  make_folder(NEW_ROOT "/run/hosts");
  make_folder(NEW_ROOT "/run/old");
  make_folder(NEW_ROOT "/run/lock");
  unlink(NEW_ROOT "/etc/resolv.conf"); /* it may be a link into the machine's /run */
  put(NEW_ROOT "/etc/resolv.conf", "");
  put(NEW_ROOT "/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n");
  put(NEW_ROOT "/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n");
}

static void enter_root(void) {
  if (chdir(NEW_ROOT) || syscall(SYS_pivot_root, ".", "run/old") || chdir("/")) fail("pivot_root");
  umount2("/run/old", MNT_DETACH);
  sethostname("lab", 3);
}

/*
 * A host is a process that only sleeps and so keeps its namespaces; `on` and `ip -n` find them by the links.
 * (Binding the namespace files is not sure: kernel 6.18 gives namespace numbers per CPU, and refuses a mount namespace
 * whose number is lower than its own, fs/namespace.c mnt_ns_loop.)
 */
static void make_host(const char *name) {
  int ready[2];
  if (pipe2(ready, O_CLOEXEC)) fail("pipe");
  char *own = text("/run/hosts/%s", name);
  make_folder(own);
  put(text("%s/resolv.conf", own), "nameserver 10.9.0.54\n");
  pid_t keeper = fork();
  if (keeper == 0) {
    if (unshare(CLONE_NEWNET | CLONE_NEWNS)) fail("unshare for host %s", name);
    attach("none", "/", NULL, MS_REC | MS_PRIVATE, NULL);
    attach(text("%s/resolv.conf", own), "/etc/resolv.conf", NULL, MS_BIND, NULL);
    attach("lab", "/run", "tmpfs", 0, "mode=755");
    attach("lab", "/sys", "sysfs", 0, "");
    make_folder("/run/lock");
    prctl(PR_SET_NAME, name);
    if (write(ready[1], "", 1) != 1) _exit(1);
    for (int fd = 0; fd < 16; fd++) close(fd);
    for (;;) pause();
  }
  close(ready[1]);
  char byte;
  if (read(ready[0], &byte, 1) != 1) fail("host %s", name);
  close(ready[0]);
  static const char *const kinds[] = {"net", "mnt"};
  for (int i = 0; i < 2; i++) {
    if (symlink(text("/proc/%d/ns/%s", keeper, kinds[i]), text("/run/%sns/%s", kinds[i], name))) fail("host %s", name);
  }
}

static int enter_network(const char *host) {
  int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  int other = open(text("/run/netns/%s", host), O_RDONLY | O_CLOEXEC);
  if (other < 0 || setns(other, CLONE_NEWNET)) fail("enter network of %s", host);
  close(other);
  return own;
}

static void set_sysctl(const char *host, const char *key, const char *value) {
  int own = strcmp(host, "-") ? enter_network(host) : -1;
  put(text("/proc/sys/%s", key), value);
  if (own >= 0) {
    if (setns(own, CLONE_NEWNET)) fail("setns");
    close(own);
  }
}

/* Collects lines for one host; sends them when the host changes (next == NULL: at the end). */
static void ip_line(const char *host, const char *line) {
  static char *current, *lines;
  if (current && (!host || strcmp(host, current))) {
    put("/run/ip-batch", lines);
    char *in_root[] = {"ip", "-batch", "/run/ip-batch", NULL};
    char *in_host[] = {"ip", "-n", current, "-batch", "/run/ip-batch", NULL};
    if (run_to_end(strcmp(current, "-") ? in_host : in_root, -1)) fail("ip -batch for %s", current);
    free(current);
    free(lines);
    current = lines = NULL;
  }
  if (!host) return;
  if (!current) {
    current = strdup(host);
    lines = strdup("");
  }
  char *longer = text("%s%s\n", lines, line);
  free(lines);
  lines = longer;
}

static void follow(char *line) {
  char *rest = strchr(line, ' ');
  if (rest) *rest++ = 0;
  else rest = "";
  if (strcmp(line, "ip")) ip_line(NULL, NULL);
  if (!strcmp(line, "module")) load_module(rest);
  else if (!strcmp(line, "root")) make_root(rest);
  else if (!strcmp(line, "share")) attach_machine(rest, text(NEW_ROOT "%s", rest), 1);
  else if (!strcmp(line, "keep")) attach_machine(rest, text(NEW_ROOT "%s", rest), 0);
  else if (!strcmp(line, "modules")) {
    struct utsname names;
    uname(&names);
    make_folder(NEW_ROOT "/usr/lib/modules");
    if (symlink(rest, text(NEW_ROOT "/usr/lib/modules/%s", names.release)) && errno != EEXIST) fail("modules");
  }
  else if (!strcmp(line, "enter")) enter_root();
  else if (!strcmp(line, "host")) make_host(rest);
  else if (!strcmp(line, "env")) putenv(strdup(rest));
  else if (!strcmp(line, "folder")) folder = strdup(rest);
  else if (!strcmp(line, "ip")) {
    char *command = strchr(rest, ' ');
    *command++ = 0;
    ip_line(rest, command);
  }
  else if (!strcmp(line, "sysctl")) {
    char *host = strtok(rest, " "), *key = strtok(NULL, " "), *value = strtok(NULL, "");
    set_sysctl(host, key, value);
  }
  else {
    errno = EINVAL;
    fail("step '%s'", line);
  }
}

static char *read_all(const char *path, size_t *size) {
  FILE *file = fopen(path, "r");
  if (!file) fail("open %s", path);
  char *content = NULL;
  size_t room = 0;
  *size = 0;
  do {
    if (*size + 4096 > room) content = realloc(content, room = room * 2 + 8192);
    *size += fread(content + *size, 1, 4096, file);
  } while (!feof(file));
  fclose(file);
  content[*size] = 0;
  return content;
}

/* User-Mode Linux gives consoles: the command's output goes to the second and third, without CR before LF. */
static void open_consoles(void) {
  static const char *const names[] = {"/dev/null", "/dev/tty1", "/dev/tty2"};
  for (int fd = 0; fd < 3; fd++) {
    int console = open(names[fd], (fd ? O_WRONLY : O_RDONLY) | O_NOCTTY);
    struct termios mode;
    if (fd && !tcgetattr(console, &mode)) {
      mode.c_oflag &= ~OPOST;
      tcsetattr(console, TCSANOW, &mode);
    }
    dup2(console, fd);
    if (console > 2) close(console);
  }
}

int main(void) {
  run = getenv("labrun");
  uml = getpid() == 1 && getenv("labuml") != NULL;
  if (uml) {
    mount("proc", "/proc", "proc", 0, NULL);
    open_consoles();
    setenv("HOME", "/root", 1);
    setenv("TERM", "dumb", 1);
    setenv("NO_COLOR", "1", 1);
    setenv("LANG", "C.UTF-8", 1);
  }
  size_t size;
  char *args = read_all(text("%s/args", run), &size);
  char **argv = calloc(size + 1, sizeof *argv);
  for (size_t at = 0, n = 0; at < size; at += strlen(args + at) + 1) argv[n++] = args + at;

  char *plan = read_all(text("%s/plan", run), &size), *next;
  for (char *line = plan; *line; line = next) {
    next = line + strcspn(line, "\n");
    if (*next) *next++ = 0;
    if (*line) follow(line);
  }
  ip_line(NULL, NULL);
  put(text("%s/started", run), "");

  pid_t child = fork();
  if (child == 0) {
    setsid();
    if (chdir(folder)) fprintf(stderr, "lab: chdir %s: %s\n", folder, strerror(errno));
    execvp(argv[0], argv);
    fprintf(stderr, "lab: %s: %s\n", argv[0], strerror(errno));
    _exit(127);
  }
  int status;
  for (pid_t ended; (ended = wait(&status)) != child;) {
    if (ended < 0 && errno == ECHILD) fail("wait");
  }
  finish(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}
