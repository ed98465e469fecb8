<?php
// With Composer: vendor/autoload.php; with Debian's php-monolog:
require_once 'Monolog/autoload.php';

use Monolog\Formatter\JsonFormatter;
use Monolog\Handler\SocketHandler;
use Monolog\Logger;

$handler = new SocketHandler('tcp://127.0.0.1:1514');
$handler->setFormatter(new JsonFormatter());
$log = new Logger('shop', [$handler]);

$log->info('started', ['order' => 17]);
$log->error("no number\nat line 12");
