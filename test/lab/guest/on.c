/*
 * on HOST COMMAND [ARGS…]: runs a command on a host of the lab (its network and mount namespace).
 * The command replaces this process, so its process id is the command's own.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
  static const struct { const char *kind; int flag; } spaces[] = {{"net", CLONE_NEWNET}, {"mnt", CLONE_NEWNS}};
  char folder[PATH_MAX] = "/";
  int files[2];
  if (argc < 3) {
    fprintf(stderr, "usage: on HOST COMMAND [ARGS...]\n");
    return 125;
  }
  if (!getcwd(folder, sizeof folder)) strcpy(folder, "/");
  for (int i = 0; i < 2; i++) {
    char path[256];
    snprintf(path, sizeof path, "/run/%sns/%s", spaces[i].kind, argv[1]);
    files[i] = open(path, O_RDONLY | O_CLOEXEC);
    if (files[i] < 0) {
      fprintf(stderr, "on: no host %s: %s\n", argv[1], strerror(errno));
      return 125;
    }
  }
  for (int i = 0; i < 2; i++) {
    if (setns(files[i], spaces[i].flag)) {
      fprintf(stderr, "on: cannot enter %s: %s\n", argv[1], strerror(errno));
      return 125;
    }
  }
  if (chdir(folder)) fprintf(stderr, "on: chdir %s: %s\n", folder, strerror(errno));
  execvp(argv[2], argv + 2);
  fprintf(stderr, "on: %s: %s\n", argv[2], strerror(errno));
  return 127;
}
