/* A network link with latency, bandwidth, a bounded queue and outages between two network namespaces.
 *
 * Usage: link CONTROL LOG CLIENT SERVER
 *
 * CLIENT and SERVER are the names of the namespaces. Each gets a TUN device "link0". TCP itself (handshakes, slow start,
 * retransmission) is that of the kernel, because segmentation offload passes through. The control file is a struct control,
 * which a benchmark maps and changes while the link runs. The log has a line for each new connection and each HTTP request. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

/* Shared with control.py. Index 0 is the direction from the client to the server. */
struct control {
    volatile double bytes_per_second[2];
    volatile double delay;       /* seconds in each direction */
    volatile double queue;       /* bytes that wait for the line; more are dropped */
    volatile int64_t is_down;    /* drops everything */
    volatile int64_t wire_bytes[2], packets[2], drops[2], connections, payload_bytes[2];
};

struct packet {
    double at;
    int len;
    unsigned char *bytes;
};

enum { MAX_QUEUED = 65536, MAX_PACKET = 70000, BATCH = 64, TCP = 6, ETHERNET_BYTES = 18 };

static struct control *control;
static FILE *request_log;
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static int devices[2];

static void stop(const char *what) {
    perror(what);
    exit(1);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

static int open_device(const char *namespace) {
    char path[128];
    snprintf(path, sizeof path, "/var/run/netns/%s", namespace);
    int ns = open(path, O_RDONLY);
    if (ns < 0 || setns(ns, CLONE_NEWNET)) stop(path);
    close(ns);
    int device = open("/dev/net/tun", O_RDWR);
    if (device < 0) stop("/dev/net/tun");
    struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
    strcpy(request.ifr_name, "link0");
    if (ioctl(device, TUNSETIFF, &request)) stop("TUNSETIFF");
    int header = sizeof(struct virtio_net_hdr);
    if (ioctl(device, TUNSETVNETHDRSZ, &header)) stop("TUNSETVNETHDRSZ");
    if (ioctl(device, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4)) stop("TUNSETOFFLOAD");
    if (fcntl(device, F_SETFL, O_NONBLOCK)) stop("O_NONBLOCK");
    return device;
}

/* Copies the value of the header `name` (lower case, with a colon) of a request to `value`. */
static void find_header(const char *text, int len, const char *name, char *value, int room) {
    int width = strlen(name);
    strcpy(value, "-");
    for (int i = 0; i + width < len; i++) {
        if (text[i] != '\n' || strncasecmp(text + i + 1, name, width)) continue;
        int from = i + 1 + width, to = 0;
        while (from < len && text[from] == ' ') from++;
        while (from < len && text[from] != '\r' && to < room - 1) value[to++] = text[from++];
        value[to] = 0;
        return;
    }
}

/* Logs a segment to the server if it opens a connection or begins a request. A repeated segment has the same numbers. */
static void log_segment(double at, const unsigned char *tcp, int header, int payload) {
    int port = tcp[0] << 8 | tcp[1];
    uint32_t number;
    memcpy(&number, tcp + 4, sizeof number);
    number = ntohl(number);
    int is_syn = (tcp[13] & 0x12) == 2;
    const char *text = (const char *)tcp + header;
    static const char *const methods[] = {"GET ", "HEAD ", "PUT ", "POST ", "DELETE "};
    int is_request = 0;
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        is_request |= payload > 16 && !strncmp(text, methods[i], strlen(methods[i]));
    if (!is_syn && !is_request) return;
    pthread_mutex_lock(&log_lock);
    if (is_syn) {
        control->connections++;
        fprintf(request_log, "%.6f CONNECT %d %u\n", at, port, number);
    } else {
        char line[600], range[80];
        int len = 0;
        while (len < payload && len < (int)sizeof line - 1 && text[len] != '\r') line[len] = text[len], len++;
        line[len] = 0;
        find_header(text, payload, "range:", range, sizeof range);
        fprintf(request_log, "%.6f REQUEST %d %u %s | %s\n", at, port, number, line, range);
    }
    fflush(request_log);
    pthread_mutex_unlock(&log_lock);
}

/* Reads one packet and queues it, or drops it. `last` is the time at which the line has sent everything before it. */
static int receive(int direction, struct packet *queue, unsigned head, unsigned *tail, double *last, unsigned char *buffer) {
    int len = read(devices[direction], buffer, MAX_PACKET);
    if (len <= 0) return 0;
    double time = now();
    const struct virtio_net_hdr *offload = (void *)buffer;
    const unsigned char *ip = buffer + sizeof *offload;
    if ((ip[0] >> 4) != 4 || ip[9] != TCP) return 1;
    if (control->is_down) {
        control->drops[direction]++;
        return 1;
    }
    int ip_header = (ip[0] & 15) * 4;
    const unsigned char *tcp = ip + ip_header;
    int header = (tcp[12] >> 4) * 4, payload = len - (int)sizeof *offload - ip_header - header;
    /* The headers of each segment are on the wire too. */
    int segment = offload->gso_type ? offload->gso_size : 1460;
    int segments = payload > 0 ? (payload + segment - 1) / segment : 1;
    double wire = payload + segments * (double)(ip_header + header + ETHERNET_BYTES);
    double rate = control->bytes_per_second[direction];
    double waiting = *last > time ? (*last - time) * rate : 0;
    if (waiting > control->queue || *tail - head >= MAX_QUEUED) {
        control->drops[direction] += segments;
        return 1;
    }
    *last = (*last > time ? *last : time) + wire / rate;
    control->wire_bytes[direction] += wire;
    control->packets[direction] += segments;
    control->payload_bytes[direction] += payload;
    if (direction == 0) log_segment(time, tcp, header, payload);
    struct packet *packet = &queue[*tail % MAX_QUEUED];
    packet->bytes = malloc(len);
    if (!packet->bytes) stop("malloc");
    memcpy(packet->bytes, buffer, len);
    packet->len = len;
    packet->at = *last + control->delay;
    ++*tail;
    return 1;
}

__attribute__((noreturn)) static void *carry(void *argument) {
    int direction = (int)(intptr_t)argument, out = devices[1 - direction];
    struct packet *queue = calloc(MAX_QUEUED, sizeof *queue);
    unsigned char *buffer = malloc(MAX_PACKET);
    if (!queue || !buffer) stop("malloc");
    unsigned head = 0, tail = 0;
    double last = 0;
    prctl(PR_SET_TIMERSLACK, 1000);
    for (;;) {
        double time = now();
        while (head != tail && queue[head % MAX_QUEUED].at <= time) {
            struct packet *packet = &queue[head++ % MAX_QUEUED];
            if (write(out, packet->bytes, packet->len) < 0 && errno != EAGAIN && errno != EIO) perror("write");
            free(packet->bytes);
        }
        struct timespec wait, *limit = NULL;
        if (head != tail) {
            double left = queue[head % MAX_QUEUED].at - now();
            if (left < 0) left = 0;
            wait.tv_sec = left;
            wait.tv_nsec = (left - wait.tv_sec) * 1e9;
            limit = &wait;
        }
        struct pollfd ready = {.fd = devices[direction], .events = POLLIN};
        ppoll(&ready, 1, limit, NULL);
        for (int i = 0; ready.revents & POLLIN && i < BATCH; i++)
            if (!receive(direction, queue, head, &tail, &last, buffer)) break;
    }
}

int main(int count, char **arguments) {
    if (count != 5) {
        fprintf(stderr, "usage: link CONTROL LOG CLIENT SERVER\n");
        return 2;
    }
    int file = open(arguments[1], O_RDWR);
    if (file < 0) stop(arguments[1]);
    control = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (control == MAP_FAILED) stop("mmap");
    request_log = fopen(arguments[2], "a");
    if (!request_log) stop(arguments[2]);
    devices[0] = open_device(arguments[3]);
    devices[1] = open_device(arguments[4]);
    pthread_t thread;
    if (pthread_create(&thread, NULL, carry, (void *)0)) stop("thread");
    carry((void *)1);
}
