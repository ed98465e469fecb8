use strict;
use warnings;
use Sys::Syslog qw(:standard :macros setlogsock);

setlogsock({ type => "tcp", host => "127.0.0.1", port => 1514 });
openlog("shop", "pid", LOG_USER);

sub note {
    my ($level, $text) = @_;
    $text =~ s/\n/\\n/g;    # one record, one line
    syslog($level, "%s", $text);
}

note(LOG_INFO, "started");
note(LOG_ERR, "no number\nat line 12");
closelog();
