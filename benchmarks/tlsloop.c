/*
 * The least a server of lines over TLS can do: epoll, SSL_read until it wants more, write. What others are held against.
 *
 *     tlsloop PORT OUTPUT CERTIFICATE KEY
 *
 * It frames nothing and accounts for nothing.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#define SIZE (128 * 1024)
#define RECORD (16 * 1024)
#define EVENTS 256

static char buffer[SIZE];
static int output;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void put(size_t size)
{
	size_t done = 0;
	while (done < size) {
		ssize_t written = write(output, buffer + done, size - done);
		if (written < 0)
			fail("write");
		done += (size_t)written;
	}
}

/* Read all there is; 0 when the peer is gone. */
static int serve(SSL *ssl)
{
	size_t filled = 0;
	for (;;) {
		int size = SSL_read(ssl, buffer + filled, RECORD);
		if (size <= 0) {
			int error = SSL_get_error(ssl, size);
			put(filled);
			return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE;
		}
		filled += (size_t)size;
		if (filled > SIZE - RECORD) {
			put(filled);
			filled = 0;
		}
	}
}

static SSL_CTX *settings(const char *certificate, const char *key)
{
	SSL_CTX *context = SSL_CTX_new(TLS_server_method());
	SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
	SSL_CTX_set_num_tickets(context, 0);
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
	if (SSL_CTX_use_certificate_chain_file(context, certificate) != 1 ||
	    SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1) {
		ERR_print_errors_fp(stderr);
		exit(1);
	}
	return context;
}

static int listening(int port)
{
	int one = 1, found = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(found, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	setsockopt(found, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	if (bind(found, (struct sockaddr *)&address, sizeof address) || listen(found, 1024))
		fail("listen");
	return found;
}

static void welcome(int epoll, int listener, SSL_CTX *context)
{
	int peer;
	while ((peer = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
		SSL *ssl = SSL_new(context);
		struct epoll_event event = {.events = EPOLLIN, .data.ptr = ssl};
		SSL_set_fd(ssl, peer);
		SSL_set_accept_state(ssl);
		epoll_ctl(epoll, EPOLL_CTL_ADD, peer, &event);
	}
}

static void end(SSL *ssl)
{
	int peer = SSL_get_fd(ssl);
	SSL_shutdown(ssl);
	SSL_free(ssl);
	close(peer);
}

int main(int count, char **words)
{
	if (count != 5) {
		fprintf(stderr, "usage: tlsloop PORT OUTPUT CERTIFICATE KEY\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	SSL_CTX *context = settings(words[3], words[4]);
	int listener = listening(atoi(words[1])), epoll = epoll_create1(0);
	struct epoll_event first = {.events = EPOLLIN, .data.ptr = NULL}, events[EVENTS];
	output = open(words[2], O_WRONLY | O_CREAT | O_APPEND, 0600);
	if (output < 0)
		fail(words[2]);
	epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &first);
	for (;;) {
		int ready = epoll_wait(epoll, events, EVENTS, -1);
		for (int i = 0; i < ready; i++) {
			SSL *ssl = events[i].data.ptr;
			ERR_clear_error();
			if (ssl == NULL)
				welcome(epoll, listener, context);
			else if (!serve(ssl))
				end(ssl);
		}
	}
}
