/* Makes the weights of a checkpoint take SLOW_DISK_S seconds until they are on the disk: LD_PRELOAD=slow_disk.so
 * gcc -shared -fPIC slow_disk.c -o slow_disk.so */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void wait_for_disk(int file) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return;
  path[length] = 0;
  const char *seconds = getenv("SLOW_DISK_S");
  if (seconds && strstr(path, "model.safetensors")) sleep(atoi(seconds));
}

int fsync(int file) {
  wait_for_disk(file);
  return syscall(SYS_fsync, file);
}

int fdatasync(int file) {
  wait_for_disk(file);
  return syscall(SYS_fdatasync, file);
}
