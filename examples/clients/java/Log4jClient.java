import org.apache.logging.log4j.LogManager;
import org.apache.logging.log4j.Logger;

public class Log4jClient {
    public static void main(String[] arguments) {
        Logger log = LogManager.getLogger("shop");
        log.info("started");
        log.error("no number\nat line 12");
        LogManager.shutdown();
    }
}
