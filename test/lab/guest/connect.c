/*
 * The app of the lab: resolves by glibc's getaddrinfo, connects, and reports each try as a line of JSON.
 *
 *   connect serve PORT               TCP (greets whoever connects, as HTTP) and UDP (echo), all addresses
 *   connect try PORT MILLIS [JOBS]   reads lines `tcp|udp 4|6|any NAME`, tries each, JOBS at a time (default 1)
 *
 * Report: resolveMs, connectMs (the connect() call alone), totalMs (from asking the name to the first byte back),
 * stage and error where it failed (getaddrinfo, socket, connect, send, receive), retransmits (TCP_INFO: SYNs and
 * whatever else the kernel had to send twice). A UDP try sends exactly one datagram.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <arpa/inet.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

/* A UDP answer must leave from the address that was asked: the socket is bound to all of them. */
static void echo_datagram(int s) {
  char data[2048], control[256];
  struct sockaddr_in6 from;
  struct iovec part = {data, sizeof data};
  struct msghdr message = {
    .msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &part, .msg_iovlen = 1,
    .msg_control = control, .msg_controllen = sizeof control,
  };
  ssize_t size = recvmsg(s, &message, 0);
  if (size < 0) return;
  for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
      ((struct in6_pktinfo *)CMSG_DATA(c))->ipi6_ifindex = 0;
    }
  }
  part.iov_len = size;
  sendmsg(s, &message, 0);
}

/* The greeting goes out at once; the socket is closed 64 connections later, for closing it before curl's request has
   been read would be a reset. */
static void greet(int s) {
  static const char greeting[] = "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhello\n";
  static int open[64], next;
  send(s, greeting, sizeof greeting - 1, MSG_NOSIGNAL);
  shutdown(s, SHUT_WR);
  if (open[next]) close(open[next]);
  open[next] = s;
  next = (next + 1) % 64;
}

static int serve(int port) {
  int on = 1, off = 0;
  struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
  struct pollfd sockets[2] = {
    {.fd = socket(AF_INET6, SOCK_STREAM, 0), .events = POLLIN}, {.fd = socket(AF_INET6, SOCK_DGRAM, 0), .events = POLLIN},
  };
  for (int i = 0; i < 2; i++) {
    setsockopt(sockets[i].fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(sockets[i].fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    setsockopt(sockets[i].fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on);
    if (bind(sockets[i].fd, (struct sockaddr *)&any, sizeof any)) {
      perror("bind");
      return 1;
    }
  }
  listen(sockets[0].fd, 1024);
  puts("serving");
  fflush(stdout);
  while (poll(sockets, 2, -1) >= 0) {
    if (sockets[0].revents) {
      int s = accept(sockets[0].fd, NULL, NULL);
      if (s >= 0) greet(s);
    }
    if (sockets[1].revents) echo_datagram(sockets[1].fd);
  }
  return 1;
}

struct report {
  double resolve, connect, total;
  const char *stage, *error;
  char address[INET6_ADDRSTRLEN];
  unsigned retransmits;
};

static void failed(struct report *r, const char *stage, int error) {
  r->stage = stage;
  /* SO_SNDTIMEO ends a blocking connect() with EINPROGRESS, SO_RCVTIMEO a recv() with EAGAIN: both mean out of time. A
     connect() that gives EAGAIN itself is the very thing the lab looks for and keeps its name. */
  int late = (!strcmp(stage, "connect") && error == EINPROGRESS) || (!strcmp(stage, "receive") && error == EAGAIN);
  r->error = late ? "ETIMEDOUT" : strerrorname_np(error);
}

static void attempt(struct report *r, int tcp, int family, const char *name, const char *port, int millis) {
  struct addrinfo hints = {.ai_family = family, .ai_socktype = tcp ? SOCK_STREAM : SOCK_DGRAM}, *list = NULL;
  struct timeval limit = {millis / 1000, millis % 1000 * 1000};
  double start = now();
  int gai = getaddrinfo(name, port, &hints, &list);
  r->resolve = now() - start;
  if (gai) {
    r->stage = "getaddrinfo";
    r->error = gai == EAI_AGAIN ? "EAI_AGAIN" : gai == EAI_NONAME ? "EAI_NONAME" : gai_strerror(gai);
    return;
  }
  int s = socket(list->ai_family, list->ai_socktype, 0);
  if (s < 0) {
    failed(r, "socket", errno);
    freeaddrinfo(list);
    return;
  }
  getnameinfo(list->ai_addr, list->ai_addrlen, r->address, sizeof r->address, NULL, 0, NI_NUMERICHOST);
  setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  double before = now();
  int bad = connect(s, list->ai_addr, list->ai_addrlen) ? errno : 0;
  r->connect = now() - before;
  char byte = 'x';
  if (bad) failed(r, "connect", bad);
  else if (!tcp && send(s, &byte, 1, 0) != 1) failed(r, "send", errno);
  else {
    ssize_t size = recv(s, &byte, 1, 0);
    if (size != 1) failed(r, "receive", size < 0 ? errno : ECONNRESET);
  }
  r->total = now() - start;
  struct tcp_info info = {0};
  socklen_t size = sizeof info;
  if (tcp && !getsockopt(s, IPPROTO_TCP, TCP_INFO, &info, &size)) r->retransmits = info.tcpi_total_retrans;
  close(s);
  freeaddrinfo(list);
}

static void try_line(char *line, const char *port, int millis) {
  char *protocol = strtok(line, " \n"), *version = strtok(NULL, " \n"), *name = strtok(NULL, " \n");
  if (!name) return;
  int family = *version == '4' ? AF_INET : *version == '6' ? AF_INET6 : AF_UNSPEC;
  struct report r = {.stage = "", .error = ""};
  attempt(&r, !strcmp(protocol, "tcp"), family, name, port, millis);
  char text[1024];
  int size = snprintf(text, sizeof text,
    "{\"name\":\"%s\",\"protocol\":\"%s\",\"family\":\"%s\",\"address\":\"%s\",\"resolveMs\":%.3f,\"connectMs\":%.3f,"
    "\"totalMs\":%.3f,\"stage\":\"%s\",\"error\":\"%s\",\"retransmits\":%u}\n",
    name, protocol, version, r.address, r.resolve, r.connect, r.total, r.stage, r.error, r.retransmits);
  if (write(1, text, size) != size) exit(1); /* one write per line: jobs share the output */
}

static int try_all(const char *port, int millis, int jobs) {
  char **lines = NULL, *line = NULL;
  size_t count = 0, room = 0;
  while (getline(&line, &room, stdin) > 0) {
    lines = realloc(lines, (count + 1) * sizeof *lines);
    lines[count++] = line;
    line = NULL;
    room = 0;
  }
  for (int job = 0; job < jobs; job++) {
    if (jobs > 1 && fork()) continue;
    for (size_t i = job; i < count; i += jobs) try_line(lines[i], port, millis);
    if (jobs > 1) _exit(0);
  }
  while (wait(NULL) > 0) continue;
  return 0;
}

int main(int argc, char **argv) {
  if (argc == 3 && !strcmp(argv[1], "serve")) return serve(atoi(argv[2]));
  if (argc >= 4 && !strcmp(argv[1], "try")) return try_all(argv[2], atoi(argv[3]), argc > 4 ? atoi(argv[4]) : 1);
  fprintf(stderr, "usage: connect serve PORT | connect try PORT MILLIS [JOBS]\n");
  return 2;
}
