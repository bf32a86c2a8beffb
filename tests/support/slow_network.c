/* Makes the writes of a program to its sockets take time, as on a network of NETWORK_MB_PER_S: LD_PRELOAD=slow_network.so
 * While it writes a kilobyte or more, which is no number of a step but a part of its gradient, the file NETWORK_MARK is there.
 * gcc -shared -fPIC slow_network.c -o slow_network.so */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

ssize_t writev(int file, const struct iovec *parts, int num_parts) {
  ssize_t written = syscall(SYS_writev, file, parts, num_parts);
  const char *rate = getenv("NETWORK_MB_PER_S");
  if (written > 0 && rate) {
    double seconds = written / (1e6 * atof(rate));
    struct timespec pause = {(time_t)seconds, (long)(1e9 * (seconds - (time_t)seconds))};
    const char *mark = written >= 1024 ? getenv("NETWORK_MARK") : NULL;
    if (mark) close(open(mark, O_CREAT | O_WRONLY, 0644));
    nanosleep(&pause, NULL);
    if (mark) unlink(mark);
  }
  return written;
}
