/* What libfaketime 0.9.10 leaves out or gets wrong, loaded before it; compiled by tests/faults/clock.py.

   librdkafka waits with C11's cnd_timedwait, which libfaketime does not know: a wait until a time of the
   stepped clock would be one of hours. Python sleeps with clock_nanosleep on the monotonic clock, which
   libfaketime takes for a mistake. */

#define ETIMEDOUT 110
#define SYS_CLOCK_NANOSLEEP 230 /* x86-64 */
enum { THRD_SUCCESS = 0, THRD_ERROR = 2, THRD_TIMEDOUT = 4 }; /* as in glibc's threads.h */

struct timespec;
int pthread_cond_timedwait(void *condition, void *mutex, const struct timespec *until); /* libfaketime's */
long syscall(long number, ...);
int *__errno_location(void);

int cnd_timedwait(void *condition, void *mutex, const struct timespec *until)
{
    int error = pthread_cond_timedwait(condition, mutex, until);
    return error == 0 ? THRD_SUCCESS : error == ETIMEDOUT ? THRD_TIMEDOUT : THRD_ERROR;
}

int clock_nanosleep(int clock, int flags, const struct timespec *request, struct timespec *remain)
{
    return syscall(SYS_CLOCK_NANOSLEEP, clock, flags, request, remain) == 0 ? 0 : *__errno_location();
}
